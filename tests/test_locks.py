"""locks/: what this repository sets up is pinned, hashed, one version a package, and what pyproject.toml asks for."""

from __future__ import annotations

import re
import tomllib
from itertools import product
from pathlib import Path

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


def test_every_line_is_a_pin_with_hashes() -> None:
    for path in LOCKS:
        first, _, text = path.read_text().partition("\n")
        assert first == "# Made by `make lock`. Do not edit.", path
        assert PIN.sub("", text) == "", f"{path}: no address, no range, no package without a hash"
        assert PIN.search(text), path


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


HOLDS = {
    ("dev",): ["dev"],
    ("dev", "dev-all", "torch"): ["dev-all"],
    ("small",): ["demo", "serve", "qdrant", "client", "data"],
    ("demo",): ["demo", "serve"],
    ("image-triton",): ["serve", "api", "edge", "qdrant", "triton"],
    ("image-cpu",): ["serve", "api", "edge", "qdrant", "cpu"],
    ("image-gpu",): ["serve", "api", "edge", "qdrant", "gpu"],
    ("image-jobs",): ["serve", "api", "qdrant", "triton", "cpu", "data", "postgresql", "opensearch"],
}


def test_locks_hold_what_their_extras_ask_for() -> None:
    for (locks, extras), python in product(HOLDS.items(), PYTHONS):
        found = pins(*locks, python=python)
        for extra in extras:
            for name, requirements in _wanted(extra, python).items():
                assert name in found, f"{name} of the extra {extra!r} is not in {locks}: make lock"
                for one in requirements:
                    fits = one.specifier.contains(found[name], prereleases=True)
                    assert fits, f"{locks}: {one}, locked {found[name]}: make lock"


def test_a_package_has_one_version_everywhere() -> None:
    for python in PYTHONS:
        everything = pins("dev", "dev-all", "torch", python=python)
        for path in LOCKS:
            if path.stem not in ("triton", "clients"):  # these want an old numpy, an old cohere
                for name, version in pins(path.stem, python=python).items():
                    assert everything.setdefault(name, version) == version, f"{path.name}, {python}: {name}"


def test_what_has_no_wheel_is_left_out_where_it_has_none() -> None:
    assert "mteb" in pins("dev-all", python="3.12")
    assert "mteb" not in pins("dev-all", python="3.12", machine="aarch64")
    assert "nvidia-pytriton" in pins("triton", python="3.12")
    assert not pins("triton", python="3.13"), "nothing to install: the tests skip"
