"""locks/: what this repository sets up is pinned, hashed, one version a package, and what pyproject.toml asks for."""

from __future__ import annotations

import ast
import importlib
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LOCKS = sorted((ROOT / "locks").glob("*.txt"))
PIN = re.compile(
    r"^([\w.-]+)==(\S+)(?: ; ([^\\\n]+?))? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE
)
PYTHONS = ("3.11", "3.12", "3.13", "3.14")


def pins(*names: str, python: str, machine: str = "x86_64") -> dict[str, str]:
    """Name and version of all that these locks install on Linux."""
    place = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
        "os_name": "posix",
    }
    found = {}
    for name in names:
        for package, version, marker, _ in PIN.findall((ROOT / "locks" / f"{name}.txt").read_text()):
            if not marker or Marker(marker).evaluate(place):
                found[canonicalize_name(package)] = version
    return found


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_every_line_is_a_pin_with_hashes(path: Path) -> None:
    first, _, text = path.read_text().partition("\n")
    assert first == "# Made by `make lock`. Do not edit."
    assert PIN.sub("", text) == "", "no address, no range, no package without a hash"
    assert PIN.search(text)


def _wanted(extra: str, python: str) -> dict[str, list[Requirement]]:
    """What an extra of pyproject.toml asks for on Linux, its own extras followed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {"": project["dependencies"], **project["optional-dependencies"]}
    place = {"python_version": python, "sys_platform": "linux", "platform_machine": "x86_64"}
    found: dict[str, list[Requirement]] = {}
    left, seen = ["", extra], set()
    while left:
        if (name := left.pop()) in seen:
            continue
        seen.add(name)
        for one in map(Requirement, extras[name]):
            if one.marker is not None and not one.marker.evaluate({**place, "extra": name}):
                continue
            if one.name == "reco-plugin":
                left += one.extras
            else:
                found.setdefault(canonicalize_name(one.name), []).append(one)
    return found


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(
    ("locks", "extras"),
    [
        (("dev", "torch"), ["dev"]),
        (("small",), ["demo", "serve", "qdrant", "client", "data"]),
        (("demo",), ["demo", "examples", "serve", "report"]),
        (("image-triton",), ["serve", "api", "qdrant", "triton"]),
        (("image-cpu",), ["serve", "api", "qdrant", "cpu"]),
        (("image-gpu",), ["serve", "api", "qdrant", "gpu"]),
        (("image-jobs",), ["serve", "api", "qdrant", "triton", "cpu", "data", "postgresql", "opensearch"]),
    ],
    ids=lambda value: value[0],
)
def test_a_lock_holds_what_its_extras_ask_for(locks: tuple[str, ...], extras: list[str], python: str) -> None:
    found = pins(*locks, python=python)
    for extra in extras:
        for name, requirements in _wanted(extra, python).items():
            assert name in found, f"{name} of the extra {extra!r} is in no lock: make lock"
            for one in requirements:
                assert one.specifier.contains(found[name], prereleases=True), f"{one}, locked {found[name]}: make lock"


@pytest.mark.parametrize("python", PYTHONS)
def test_a_package_has_one_version_everywhere(python: str) -> None:
    everything = pins("dev", "torch", python=python)
    for path in LOCKS:
        if path.stem not in ("triton", "clients"):  # these want an old numpy, an old cohere
            for name, version in pins(path.stem, python=python).items():
                assert everything.setdefault(name, version) == version, f"{path.name}: {name}"


def test_torch_is_the_release_that_capped_machines_have() -> None:
    found = pins("torch", python="3.11")
    assert (found["torch"], found["torchvision"]) == ("2.13.0", "0.28.0")
    assert not [name for name in pins("dev", python="3.11") if name.startswith(("nvidia-", "cuda-", "torch="))]


def test_what_has_no_wheel_is_left_out_where_it_has_none() -> None:
    assert "mteb" in pins("dev", python="3.12")
    assert "mteb" not in pins("dev", python="3.12", machine="aarch64")
    assert "nvidia-pytriton" in pins("triton", python="3.12")
    assert not pins("triton", python="3.13"), "nothing to install: the tests skip"


@pytest.mark.parametrize("python", PYTHONS)
def test_types_are_checked_with_what_each_python_gets(python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "locks")
    found = importlib.import_module("pythons").wanted("dev", python)
    assert {canonicalize_name(name) for name in found} >= {"numpy", "scipy"}
    got = {canonicalize_name(name): PIN.fullmatch(block) for name, block in found.items()}
    assert {name: pin[2] for name, pin in got.items() if pin} == pins("dev", python=python)
    assert not [name for name, pin in got.items() if pin is None or pin[3]], "pip judges markers by its own Python"


def test_the_small_set_of_tests_for_other_pythons_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "locks")
    small = importlib.import_module("pythons").SMALL
    assert small and [name for name in small if not (ROOT / name).exists()] == []


def _imported(path: Path) -> Iterator[str]:
    """The modules that a file imports when it is read, up to where it may skip, with what its helpers import."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Expr | ast.Assign) and "importorskip" in ast.dump(node):
            return
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        for name in names:
            top = name.partition(".")[0]
            helpers = [*(ROOT / "tests/support").glob(f"{top}.py"), *(ROOT / "tests/support").glob(f"{top}/*.py")]
            yield from (other for helper in helpers for other in _imported(helper))
            yield from [] if helpers else [top]


@pytest.mark.parametrize("python", PYTHONS)
def test_the_small_set_of_tests_can_be_read_with_its_lock(
    python: str, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    monkeypatch.syspath_prepend(ROOT / "locks")
    is_slow = pytestconfig.pluginmanager.getplugin(str(ROOT / "tests/conftest.py")).is_slow  # left out there
    small = [ROOT / name for name in importlib.import_module("pythons").SMALL]
    paths = [path for place in small for path in ([place] if place.is_file() else place.rglob("*.py"))]
    paths += {above / "conftest.py" for path in paths for above in path.parents if (above / "conftest.py").exists()}
    needed = {name: path for path in paths if not is_slow(path) for name in _imported(path)}
    found, sources = pins("small", python=python), packages_distributions()
    assert "pytest_docker" in needed
    for name in needed.keys() - sys.stdlib_module_names - {"reco_plugin", "tests", "benchmarks", "examples"}:
        assert {canonicalize_name(source) for source in sources[name]} & found.keys(), f"{needed[name]} imports {name}"
