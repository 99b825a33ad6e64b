"""What the README and the pages in docs tell to type exists, runs, and leads somewhere."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer
from PIL import Image

from reco_plugin import Reco
from reco_plugin.cli.app import app
from reco_plugin.serve.service_settings import ServeSettings
from reco_plugin.settings import Settings

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/**/*.md"))]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCED = re.compile(r"```(\w*)\n(.*?)```", flags=re.DOTALL)


def commands(text: str) -> set[str]:
    """Lines of the blocks to type and each `reco …` between backquotes; without comments, and variables in front."""
    blocks = "\n".join(block for language, block in FENCED.findall(text) if language in ("", "bash"))
    lines = re.sub(r"\\\n\s*", "", blocks).splitlines() + re.findall(r"`(reco [^`]+)`", FENCED.sub("", text))
    return {re.sub(r"^(RECO_\w+=\S+ )+", "", re.sub(r"\s+#.*|\s&$", "", line)).strip() for line in lines}


COMMAND = typer.main.get_command(app)
TYPED = {
    line
    for page in PAGES
    for line in commands((ROOT / page).read_text(encoding="utf-8"))
    if line.startswith("reco ") and not re.search(r"[…|]", line)  # those leave something out
}


def untyped(line: str) -> str | None:
    """Why the command line would not take a line; None where it would."""
    command, words = COMMAND, shlex.split(line)[1:]
    context = command.context_class(command)  # not resilient: it would swallow unknown options
    while hasattr(command, "get_command") and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        if found is None:
            return f"no command {words[0]!r}"
        command, words = found, words[1:]
    try:
        command.make_parser(context).parse_args(words)
    except Exception as error:  # of Click, whichever copy of it Typer uses
        return str(error)
    return None


def test_every_command_takes_its_options() -> None:
    assert len(TYPED) > 80
    assert {line: why for line in sorted(TYPED) if (why := untyped(line))} == {}
    assert untyped("reco memory bild x") == "no command 'bild'"
    assert "--caushun" in str(untyped("reco serve --caushun 1"))


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
    pages = [(ROOT / page).read_text(encoding="utf-8") for page in PAGES]
    targets = {target for text in pages for target in re.findall(r"(?m)(?:^|`)make ([a-z-]+)", text)}
    assert len(targets) > 10
    assert {target for target in targets if not re.search(rf"(?m)^{target}:", makefile)} == set()


def unknown_module(command: str) -> str | None:
    """Why ``python -m`` would not take a command of this repository: its module or a flag is missing."""
    name, *words = command.split()
    spec = find_spec(name) if find_spec(name.partition(".")[0]) else None
    if spec is not None and spec.submodule_search_locations is not None:
        spec = find_spec(f"{name}.__main__")
    if spec is None or spec.origin is None:
        return f"no module {name!r}"
    code = Path(spec.origin).read_text(encoding="utf-8")
    missing = [word for word in words if word.startswith("--") and f'"{word}"' not in code]
    return f"no flag {missing[0]}" if missing else None


def test_every_benchmark_and_example_is_there_with_its_flags() -> None:
    texts = [(ROOT / page).read_text(encoding="utf-8") for page in PAGES]
    typed = {line for text in texts for line in re.findall(r"python -m ((?:benchmarks|examples)[^`\n#>]*)", text)}
    assert len(typed) > 10
    assert {line: why for line in sorted(typed) if (why := unknown_module(line))} == {}
    assert unknown_module("benchmarks.startup") == "no module 'benchmarks.startup'"
    assert unknown_module("benchmarks.nulls --draws") == "no flag --draws"


def lost(page: Path) -> Iterator[str]:
    """Links of a page that lead to no file, or to no heading of it."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        name, _, heading = target.partition("#")
        if "://" in target:
            continue
        path = page.parent / name if name else page
        if not path.exists() or (heading and heading not in headings(path)):
            yield target


def test_every_file_and_variable_on_the_pages_is_there() -> None:
    text = "".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES if page != "docs/measurements.md")
    files = set(re.findall(r"(?<![\w/:])((?:deploy|docs|tests|benchmarks|examples)/[\w./-]*\w)", text))
    assert {name for name in files if not (ROOT / name).exists()} == set()
    named = {name.lower().partition("__")[0] for name in re.findall(r"\bRECO_([A-Z_]*[A-Z])\b", text)}
    known = {*Settings.model_fields, *(f"serve_{name}" for name in ServeSettings.model_fields)}
    assert len(named) >= 8 and named <= known, named - known


@cache
def headings(page: Path) -> set[str]:
    """The headings of a page, as links name them."""
    titles = re.findall(r"(?m)^#+ (.*)$", page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


def test_every_link_leads_to_a_page_and_a_heading(tmp_path: Path) -> None:
    assert {page: found for page in PAGES if (found := list(lost(ROOT / page)))} == {}
    page = tmp_path / "page.md"
    page.write_text("# A title\n[a](#a-title) [b](#b) [c](c.md) [d](https://d.example)\n", encoding="utf-8")
    assert list(lost(page)) == ["#b", "c.md"]


def test_the_index_lists_every_page() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert pages - {"index.md"} <= set(re.findall(r"\((\S+\.md)\)", index))


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


def test_what_python_on_the_pages_imports_of_ours_is_there() -> None:
    blocks = [block for page in PAGES for language, block in FENCED.findall((ROOT / page).read_text(encoding="utf-8"))
              if language == "python"]  # fmt: skip
    nodes = [node for block in blocks for node in ast.walk(ast.parse(block)) if isinstance(node, ast.ImportFrom)]
    ours = [(str(node.module), name.name) for node in nodes for name in node.names if "reco_plugin" in str(node.module)]
    assert len(ours) > 30
    for module, name in ours:  # most are read, not imported: frameworks of the adapters take seconds
        there = name in defined_in(module) or hasattr(importlib.import_module(module), name)
        assert there or find_spec(f"{module}.{name}"), f"{module} has no {name}"


def defined_in(module: str) -> set[str]:
    """Functions and classes at the top of a module."""
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None, f"there is no {module}"
    body = ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body
    return {node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
