"""locks/: what this repository sets up is pinned, hashed, one version a package, and what pyproject.toml asks for."""

from __future__ import annotations

import re
import tomllib
from itertools import product
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


@pytest.mark.parametrize(
    ("locks", "extras"),
    [
        (("dev", "torch"), ["dev"]),
        (("dev", "dev-all", "torch"), ["dev-all"]),
        (("small",), ["demo", "serve", "qdrant", "client", "data"]),
        (("demo",), ["demo", "serve"]),
        (("image-triton",), ["serve", "api", "edge", "qdrant", "triton"]),
        (("image-cpu",), ["serve", "api", "edge", "qdrant", "cpu"]),
        (("image-gpu",), ["serve", "api", "edge", "qdrant", "gpu"]),
        (("image-jobs",), ["serve", "api", "qdrant", "triton", "cpu", "data", "postgresql", "opensearch"]),
    ],
    ids=lambda value: value[0],
)
def test_a_lock_holds_what_its_extras_ask_for(locks: tuple[str, ...], extras: list[str]) -> None:
    for python, extra in product(PYTHONS, extras):
        found = pins(*locks, python=python)
        for name, requirements in _wanted(extra, python).items():
            assert name in found, f"{name} of the extra {extra!r} is in no lock: make lock"
            for one in requirements:
                assert one.specifier.contains(found[name], prereleases=True), f"{one}, locked {found[name]}: make lock"


@pytest.mark.parametrize("python", PYTHONS)
def test_a_package_has_one_version_everywhere(python: str) -> None:
    everything = pins("dev", "dev-all", "torch", python=python)
    for path in LOCKS:
        if path.stem not in ("triton", "clients"):  # these want an old numpy, an old cohere
            for name, version in pins(path.stem, python=python).items():
                assert everything.setdefault(name, version) == version, f"{path.name}: {name}"


def test_what_has_no_wheel_is_left_out_where_it_has_none() -> None:
    assert "mteb" in pins("dev-all", python="3.12")
    assert "mteb" not in pins("dev-all", python="3.12", machine="aarch64")
    assert "nvidia-pytriton" in pins("triton", python="3.12")
    assert not pins("triton", python="3.13"), "nothing to install: the tests skip"
