"""Check with every set of packages that the locks hold: ``make test-pythons``.

The locks hold other versions for other Pythons (of numpy, for one), and daily work sees only those of its own. Types
are checked for each Python, whether it is here or not: what differs is laid over the developers' packages. A small set
of tests runs on each Python that is found.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from venv import EnvBuilder

from packaging.markers import Marker
from renew import HERE, PYTHONS, ROOT, split_blocks

ENVIRONMENTS = ROOT / ".venv-pythons"
RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"
INSTALL = ("-m", "pip", "install", "-q", "--disable-pip-version-check", "--only-binary", ":all:", "--no-deps")
SMALL = (
    *(f"tests/{folder}" for folder in ("cli", "evaluation", "ingest", "memory", "learning", "fusion")),
    "tests/encoders/preprocess",
    *(f"tests/serve/test_{name}.py" for name in ("batches", "core_embed", "core_http", "limits")),
    *(f"tests/test_{name}.py" for name in ("batching", "settings", "pairs", "reco", "options")),
)


def main() -> None:
    """Check one Python after the other, then say which failed."""
    failed = []
    for python in PYTHONS:
        if python != RUNNING:
            failed += [f"types for Python {python}"] * (not check_types(python))
            failed += [f"tests on Python {python}"] * (not run_tests(python))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def check_types(python: str) -> bool:
    """Whether mypy, which runs on this Python, finds nothing wrong with the packages of that one."""
    ours, theirs = wanted("dev", RUNNING), wanted("dev", python)
    other = {name: block for name, block in theirs.items() if ours.get(name) != block}
    place = ENVIRONMENTS / f"types-{python}"
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(place), "platbase": str(place)}))
    if is_stale(place, text := "".join(other.values())):
        EnvBuilder(clear=True, symlinks=os.name != "nt").create(place)
        (site / "developers.pth").write_text(sysconfig.get_path("purelib") + "\n")  # behind what is laid over it
        pins = place / "pins.txt"
        pins.write_text(text)
        command = [sys.executable, *INSTALL, "--require-hashes", "--python-version", python, "--ignore-requires-python"]
        if not is_set_up(f"types for Python {python}", [*command, "--target", str(site), "-r", str(pins)]):
            return True
        mark(place, text)
    print(f"types for Python {python}, with its {', '.join(sorted(other))}", flush=True)
    interpreter = sysconfig.get_path("scripts", "venv", {"base": str(place)}) + "/python"
    command = [sys.executable, "-m", "mypy", "--python-version", python, "--python-executable", interpreter]
    return not subprocess.run(command, cwd=ROOT, check=False).returncode


def run_tests(python: str) -> bool:
    """Whether the small set of tests passes on that Python; also where there is none."""
    if not (found := find(python)):
        print(f"SKIPPED tests on Python {python}: there is none here", flush=True)
        return True
    place, lock = ENVIRONMENTS / python, HERE / "small.txt"
    interpreter = Path(sysconfig.get_path("scripts", "venv", {"base": str(place)}), "python")
    if is_stale(place, text := lock.read_text() + (ROOT / "pyproject.toml").read_text()):
        commands = (
            [found, "-m", "venv", "--clear", str(place)],
            [str(interpreter), *INSTALL, "--require-hashes", "-r", str(lock)],
            [str(interpreter), *INSTALL, "--no-build-isolation", "-e", str(ROOT)],
        )
        if not is_set_up(f"tests on Python {python}", *commands):
            return True
        mark(place, text)
    print(f"tests on Python {python}, {found}", flush=True)
    command = [
        str(interpreter),
        "-m",
        "pytest",
        "-q",
        "-n",
        "2",
        "--dist",
        "loadgroup",
        "-m",
        "not (slow or triton or browser or torch or fetched or ray or jvm or docker)",
        *SMALL,
    ]
    command += ["--max-worker-restart", "0", "-r", "fE", "-p", "no:cacheprovider"]
    threads = {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}
    return not subprocess.run(command, cwd=ROOT, check=False, env={**os.environ, **threads}).returncode


def is_set_up(what: str, *commands: list[str]) -> bool:
    """Whether these commands succeed; where packages cannot be fetched, that says nothing about the project."""
    for command in commands:
        if subprocess.run(command, check=False).returncode:
            print(f"SKIPPED {what}: it cannot be set up here", flush=True)
            return False
    return True


def find(python: str) -> str:
    """A Python of that version that can make an environment: of the PATH or of pyenv; nothing where there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    known = sorted(pyenv.glob(f"versions/{python}.*/bin/python"))
    for path in filter(None, [shutil.which(f"python{python}"), *map(str, known)]):
        asked = [path, "-c", "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"]
        if subprocess.run(asked, check=False, capture_output=True, text=True).stdout.strip() == python:
            return path
    return ""


def wanted(lock: str, python: str) -> dict[str, str]:
    """What a lock installs for a Python on this platform: name, and pin with its hashes."""
    place = {"python_version": python, "python_full_version": f"{python}.0"}
    found = {}
    for block in split_blocks((HERE / f"{lock}.txt").read_text()):
        pin = re.match(r"([\w.-]+)==\S+( ; ([^\\\n]+?))? \\\n", block)
        if pin and (not pin[3] or Marker(pin[3]).evaluate(place)):
            found[pin[1]] = block.replace(pin[2] or "", "", 1)  # pip would ask it of the Python that it runs on
    return found


def is_stale(place: Path, text: str) -> bool:
    """Whether an environment is to be made, since it was made from another text or not to its end."""
    done = place / ".ready"
    return not done.exists() or done.read_text() != text


def mark(place: Path, text: str) -> None:
    """Say from which text an environment was made."""
    (place / ".ready").write_text(text)


if __name__ == "__main__":
    main()
