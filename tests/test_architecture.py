"""The rules of docs and guide that a reader could forget: rooms, who may import what, what is public."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple, TypeGuard

import pytest

import reco_plugin
from reco_plugin.encoders.model_folder import GRAPHS, Artifact
from reco_plugin.export.folder import graph_specs, render_config

PACKAGE = Path(reco_plugin.__file__).parent
ROOMS = {  # name -> the modules and packages in it; an import goes to the same room or to one above it
    "ground": "errors files values vectors types defaults fingerprint proxies progress counters batching cpu",
    "options, settings": "options settings",
    "quickstart": "quickstart",
    "memory": "memory",
    "encoders": "encoders",
    "method": "learning fusion",
    "signals": "signals",
    "path": "retrieval reco pairs",
    "sources": "sources ingest",
    "export": "export",
    "evaluation": "evaluation",
    "client, adapters": "client adapters",
    "demo": "demo",
    "serve": "serve",
    "cli": "cli __main__",
}
_WITHOUT = ("ready_files", "folder", "export_options", "parity", "ready")
LARGE = ("torch", "torchvision", "open_clip", "transformers", "safetensors", "helm_python", "kubernetes_validate")
WITHOUT_TORCH = {f"export.{name}" for name in _WITHOUT}
"""Modules of the models that import no torch."""
MAX_FUNCTION, MAX_PARAMETERS = 60, 8


class Import(NamedTuple):
    """One imported module, by its full dotted name, and where."""

    name: str
    line: int
    at_import: bool
    """Whether it is loaded when the module is, rather than inside a function."""
    for_types: bool
    """Whether it is read by type checkers only."""


@cache
def modules(package: Path = PACKAGE) -> dict[str, Path]:
    """Dotted name inside the package -> file; the package itself is the empty name."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def parsed(path: Path) -> ast.Module:
    """A file of the package."""
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def nodes(path: Path) -> list[ast.AST]:
    """All of a file of the package: many tests look through it."""
    return list(ast.walk(parsed(path)))


@cache
def imports_of(path: Path) -> list[Import]:
    """Everything a file of the package imports."""
    return list(imports(path))


def imports(path: Path, package: Path = PACKAGE) -> Iterator[Import]:
    """Everything a file imports, relative names resolved; ``from . import x`` is x where x is a module."""
    every = nodes(path) if package == PACKAGE else list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    found = [node for node in every if isinstance(node, ast.Import | ast.ImportFrom)]
    late = [(part.lineno, part.end_lineno or 0) for part in every if _is_function(part)]
    typed = [(part.lineno, part.end_lineno or 0) for part in every if _is_for_types(part)]
    here = (package.name, *path.relative_to(package).with_suffix("").parts[:-1])
    for node in found:
        for_types = any(first <= node.lineno <= last for first, last in typed)
        when = not for_types and not any(first <= node.lineno <= last for first, last in late), for_types
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, *when)
        else:
            base = ".".join((*(here[: len(here) + 1 - node.level] if node.level else ()), *filter(None, [node.module])))
            for alias in node.names:
                full = f"{base}.{alias.name}"
                is_module = full.removeprefix(package.name + ".") in modules(package)
                yield Import(full if is_module else base, node.lineno, *when)


def _is_function(node: ast.AST) -> TypeGuard[ast.FunctionDef | ast.AsyncFunctionDef]:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def _is_for_types(node: ast.AST) -> TypeGuard[ast.If]:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def room_of(name: str) -> int | None:
    """The number of the room that holds a module, from above; None: none does."""
    return next((number for number, held in enumerate(ROOMS.values()) if name.partition(".")[0] in held.split()), None)


def arrows(package: Path = PACKAGE) -> set[tuple[str, str]]:
    """Who imports whom of the own package when it runs; the package itself loads its public names late."""
    return {
        (name, it)
        for name, path in modules(package).items()
        for found in (imports_of(path) if package == PACKAGE else imports(path, package))
        if name and not found.for_types
        if (it := found.name.removeprefix(package.name + ".")) != name and it in modules(package)
    }


def upward(package: Path = PACKAGE) -> set[tuple[str, str]]:
    """Imports of a room below the importer's own."""
    return {(me, it) for me, it in arrows(package) if (room_of(me) or 0) < (room_of(it) or 0)}


def third_party(*packages: str) -> dict[str, set[str]]:
    """Which modules import one of these top-level packages, anywhere in the file."""
    users: dict[str, set[str]] = {package: set() for package in packages}
    for name, path in modules().items():
        for found in imports_of(path):
            if (top := found.name.partition(".")[0]) in users:
                users[top].add(name)
    return users


def test_every_module_is_in_a_room():
    assert [name for name in modules() if name and room_of(name) is None] == []
    assert {name for held in ROOMS.values() for name in held.split()} <= modules().keys()


def test_the_tree_on_the_page_is_that_of_the_repository():
    root, path = PACKAGE.parent, list[str]()
    tree = (root / "docs" / "architecture.md").read_text("utf-8").partition("```text\n")[2].partition("```")[0]
    for line in tree.splitlines():
        path = [*path[: (len(line) - len(line.lstrip())) // 2], line.split()[0]]
        assert root.joinpath(*path).exists(), line


def test_modules_import_their_own_room_or_one_above_it():
    assert upward() == set()


def test_no_module_imports_itself_by_way_of_others():
    graph: dict[str, set[str]] = {}
    for me, it in arrows():
        graph.setdefault(me, set()).add(it)
    TopologicalSorter(graph).prepare()  # raises and names a circle


def test_torch_is_loaded_by_commands_only_when_they_run():
    users = {
        name
        for name, path in modules().items()
        if name.partition(".")[0] != "export"
        for found in imports_of(path)
        if found.at_import and found.name.startswith("reco_plugin.export")
        if found.name.removeprefix("reco_plugin.") not in WITHOUT_TORCH
    }
    assert not users


def test_qdrant_is_known_to_the_memory_and_to_its_index_only():
    users = third_party("qdrant_client", "qdrant_edge")
    assert all(users.values())
    users["qdrant_client"] -= {"sources.indexes.qdrant"}  # any collection as an index
    assert {name.partition(".")[0] for names in users.values() for name in names} == {"memory"}


def test_torch_is_known_to_the_training_only():
    users = third_party("torch", "open_clip")
    assert all(users.values())
    users["torch"] -= {"adapters.sentence_transformers"}  # whose framework asks for tensors; imported late, see below
    assert {name.partition(".")[0] for names in users.values() for name in names} == {"export"}
    assert not users["torch"] & WITHOUT_TORCH


def test_open_clip_is_loaded_with_what_loads_its_models_only():
    """It takes four seconds: processes that train on encoded pairs, and `reco eval --tune`, do without."""
    loaded = {name: {found.name for found in imports_of(path) if found.at_import} for name, path in modules().items()}
    wanted = {name for name, names in loaded.items() if any(one.startswith("open_clip") for one in names)}
    while more := {name for name, names in loaded.items() if names & {f"reco_plugin.{one}" for one in wanted}} - wanted:
        wanted |= more
    assert wanted == {"export.open_clip"}


def test_onnxruntime_runs_models_in_the_sessions_only():
    tools = {"cli.doctor", "export.folder"}  # one shows its version, one uses its converter
    assert third_party("onnxruntime")["onnxruntime"] - tools == {"encoders.runtimes.onnxruntime"}


def test_the_environment_is_read_by_the_settings_only():
    readers = set()
    for name, path in modules().items():
        for node in nodes(path):
            named = {alias.name for alias in node.names} if isinstance(node, ast.ImportFrom) else set()
            attribute = node.attr if isinstance(node, ast.Attribute) else None
            if {"environ", "environb", "getenv"} & (named | {attribute}):
                readers.add(name)
    assert readers == {
        "settings",
        "cpu",
    }  # cpu sets the threads before numpy is loaded


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        (
            "import reco_plugin",
            "torch onnxruntime qdrant_client qdrant_edge PIL pydantic typer numpy",
        ),
        ("from reco_plugin import Reco", "torch open_clip onnxruntime qdrant_client qdrant_edge typer tqdm"),
        (
            "import reco_plugin.cli.app",
            "torch onnxruntime qdrant_client qdrant_edge PIL tokenizers numpy pydantic rich",
        ),
        ("import reco_plugin.export.export_options", "torch onnx"),
        ("import reco_plugin.export.ready", "torch open_clip transformers huggingface_hub PIL"),
        (
            "import reco_plugin.client, reco_plugin.adapters.sentence_transformers",
            "torch onnxruntime httpx fastapi pydantic sentence_transformers tqdm",
        ),
    ],
)
@pytest.mark.slow
def test_an_import_in_a_new_interpreter_loads_nothing_heavy(statement, unwanted):
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "reco_plugin" in loaded
    assert set(unwanted.split()) & set(loaded) == set()


def test_the_public_names_are_these_and_can_be_used():
    assert reco_plugin.__all__ == ["Neighbours", "Pair", "Reco", "RecoError", "Refinement", "__version__"]
    assert dir(reco_plugin) == sorted(reco_plugin.__all__)
    assert all(getattr(reco_plugin, name) is not None for name in reco_plugin.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Rico'"):
        _ = reco_plugin.Rico


def test_triton_is_configured_as_the_manifest_says(model):
    manifest = Artifact.load(model).manifest
    specs = graph_specs(manifest.image, manifest.text, manifest.dimension, manifest.policy.k)
    expected = {name: render_config(specs[name], sha256=graph.sha256) for name, graph in manifest.graphs.items()}
    stored = {path.parent.name: path.read_text(encoding="utf-8") for path in model.rglob("config.pbtxt")}
    assert set(stored) >= set(GRAPHS)
    assert stored == expected


def too_much(parts: Iterable[ast.AST]) -> Iterator[str]:
    """Functions that are too long, or take too many parameters."""
    for node in parts:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            taken = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            if (lines := (node.end_lineno or 0) - node.lineno + 1) > MAX_FUNCTION:
                yield f"{node.name} has {lines} lines"
            if (number := len([one for one in taken if one.arg not in ("self", "cls")])) > MAX_PARAMETERS:
                yield f"{node.name} takes {number} parameters"


def test_no_function_is_long_or_takes_much():
    assert [f"{name}: {what}" for name, path in modules().items() for what in too_much(nodes(path))] == []


def type_names(node: ast.stmt) -> list[str]:
    """Classes, and aliases by their spelling: `Vectors`, not `VECTORS`; private ones and type variables aside."""
    if isinstance(node, ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    named = [target.id for target in targets if isinstance(target, ast.Name)]
    return [name for name in named if re.fullmatch(r"[A-Z][a-z]\w*", name)]


def test_a_type_name_has_one_home():
    homes: dict[str, set[str]] = {}
    for name, path in modules().items():
        for node in parsed(path).body:
            for defined in type_names(node):
                homes.setdefault(defined, set()).add(name)
    assert {name: where for name, where in homes.items() if len(where) > 1} == {}


@pytest.mark.slow
def test_plain_pytest_skips_what_needs_a_package_that_is_not_installed() -> None:
    root = PACKAGE.parent
    files = [
        path
        for path in root.glob("tests/**/test_*.py")
        if re.search(r"^(pytestmark.*torch|helm_python)", path.read_text("utf-8"), re.MULTILINE)
    ]
    code = "import pytest, sys; sys.modules |= dict.fromkeys(sys.argv[1].split()); sys.exit(pytest.main(sys.argv[2:]))"
    words = ["--collect-only", "-q", "-p", "no:cacheprovider", *map(str, files), str(PACKAGE / "export")]
    done = subprocess.run(
        [sys.executable, "-c", code, " ".join(LARGE), *words], cwd=root, capture_output=True, text=True, check=False
    )
    assert len(files) > 10 and done.returncode == 0, done.stdout
