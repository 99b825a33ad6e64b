"""What the README tells to type exists, runs, and leads somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
from PIL import Image

from reco_plugin import Reco
from reco_plugin.cli.app import app

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/**/*.md"))]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = sorted(
    {line.split("  #")[0].strip() for language, block in BLOCKS if not language for line in block.splitlines()}
    | set(re.findall(r"`(reco [^`]+)`", README))
)


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("reco ")])
def test_every_command_takes_its_options(line: str) -> None:
    command, words = typer.main.get_command(app), shlex.split(line)[1:]
    context = command.context_class(command)  # not resilient: it would swallow unknown options
    while hasattr(command, "get_command") and words:
        found = command.get_command(context, words[0])
        assert found is not None, f"no command {words[0]!r}"
        command, words = found, words[1:]
    command.make_parser(context).parse_args(words)  # an unknown option raises


def test_every_make_target_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"(?m)^make ([a-z-]+)", "\n".join(COMMANDS))) | set(
        re.findall(r"`make ([a-z-]+)`", README)
    )
    assert targets
    for target in targets:
        assert re.search(rf"(?m)^{target}:", makefile), target


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_page_and_a_heading(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text(encoding="utf-8")):
        name, _, heading = target.partition("#")
        if "://" in target:
            continue
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), target
        if heading:
            titles = re.findall(r"(?m)^#+ (.*)$", path.read_text(encoding="utf-8"))
            assert heading in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}, target


def test_the_example_runs_and_what_it_added_can_be_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = [block for language, block in BLOCKS if language == "python"]
    (tmp_path / "triton_models").symlink_to(ROOT / "triton_models")
    for name in ("fox.jpg", "query.jpg"):
        Image.new("RGB", (64, 64), "orange").save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    with Reco.open("triton_models", memory="./memory") as reco:
        (payload,) = [payload for batch in reco.memory.store.scroll() for payload in batch.payloads]
    assert payload["caption"] == "a red fox"
