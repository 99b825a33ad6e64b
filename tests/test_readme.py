"""What the README and the pages in docs tell to type exists, runs, and leads somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
from PIL import Image

from reco_plugin import Reco
from reco_plugin.cli.app import app
from reco_plugin.config import Settings

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/**/*.md"))]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCED = re.compile(r"```(\w*)\n(.*?)```", flags=re.DOTALL)


def commands(text: str) -> set[str]:
    """Lines of the blocks to type and each `reco …` between backquotes; without comments, and variables in front."""
    blocks = "\n".join(block for language, block in FENCED.findall(text) if language in ("", "bash"))
    lines = re.sub(r"\\\n\s*", "", blocks).splitlines() + re.findall(r"`(reco [^`]+)`", FENCED.sub("", text))
    return {re.sub(r"^(RECO_\w+=\S+ )+", "", re.sub(r"\s+#.*|\s&$", "", line)).strip() for line in lines}


COMMANDS = sorted(commands(README))
TYPED = {
    line
    for page in PAGES
    for line in commands((ROOT / page).read_text(encoding="utf-8"))
    if line.startswith("reco ") and not re.search(r"[…|]", line)  # those leave something out
}


@pytest.mark.parametrize("line", sorted(TYPED))
def test_every_command_takes_its_options(line: str) -> None:
    command, words = typer.main.get_command(app), shlex.split(line)[1:]
    context = command.context_class(command)  # not resilient: it would swallow unknown options
    while hasattr(command, "get_command") and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        assert found is not None, f"no command {words[0]!r}"
        command, words = found, words[1:]
    command.make_parser(context).parse_args(words)  # an unknown option raises


def test_every_setting_is_on_its_page_with_its_default() -> None:
    rows = [line.split("|") for line in (ROOT / "docs" / "settings.md").read_text(encoding="utf-8").splitlines()]
    for name, field in Settings.model_fields.items():
        (default,) = [row[2] for row in rows if len(row) > 3 and f"`{name}`" in row[1]]
        if isinstance(field.default, str | bool):
            assert str(field.default).lower() in default, name
        elif isinstance(field.default, int | float):
            assert f"{field.default:,.0f}" in default, name


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


@pytest.mark.parametrize("folder", ["docs", "docs/measurements"])
def test_the_index_lists_every_page_of_its_folder(folder: str) -> None:
    index = (ROOT / folder / "index.md").read_text(encoding="utf-8")
    assert {path.name for path in (ROOT / folder).glob("*.md")} - {"index.md"} <= set(
        re.findall(r"\((\S+\.md)\)", index)
    )


def test_the_example_runs_and_what_it_added_can_be_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = [block for language, block in FENCED.findall(README) if language == "python"]
    (tmp_path / "triton_models").symlink_to(ROOT / "triton_models")
    for name in ("fox.jpg", "query.jpg"):
        Image.new("RGB", (64, 64), "orange").save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    with Reco.open("triton_models", memory="./memory") as reco:
        (payload,) = [payload for batch in reco.memory.store.scroll() for payload in batch.payloads]
    assert payload["caption"] == "a red fox"
