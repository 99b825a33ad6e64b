"""The environment of the others, made with pip from ``locks/peers.txt``: exact versions, with hashes, wheels only."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

LOCK = Path(__file__).resolve().parents[2] / "locks" / "peers.txt"
_INSTALL = ("-m", "pip", "install", "-q", "--disable-pip-version-check", "--only-binary", ":all:")


def make(folder: Path) -> Path:
    """Make the environment where it is missing or was made from another lock: 6 GB and some minutes.

    Returns:
        Its Python.

    Raises:
        SystemExit: pip could not install; it said why.
    """
    python, mark, lock = folder / "bin" / "python", folder / "made-from.txt", LOCK.read_text(encoding="utf-8")
    if mark.is_file() and mark.read_text(encoding="utf-8") == lock:
        return python
    print(f"making {folder} from {LOCK.name} (6 GB)", file=sys.stderr, flush=True)
    venv.create(folder, clear=True, with_pip=True)
    done = subprocess.run([str(python), *_INSTALL, "--require-hashes", "--no-deps", "-r", str(LOCK)], check=False)
    if done.returncode:
        raise SystemExit(f"{folder} could not be made (pip ended with {done.returncode}): its messages are above")
    mark.write_text(lock, encoding="utf-8")
    return python


def versions(python: Path, packages: list[str]) -> dict[str, str]:
    """Versions of packages of an environment."""
    code = "import sys, importlib.metadata as m; print(*(m.version(one) for one in sys.argv[1:]))"
    done = subprocess.run([str(python), "-c", code, *packages], check=True, capture_output=True, text=True)
    return dict(zip(packages, done.stdout.split(), strict=True))
