"""Copies of a memory's folder: most of an embedded one's 164 MB are holes, which ``shutil`` fills with zeros."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path


def copy_folder(source: Path, target: Path) -> Path:
    """Copy a folder to a place where nothing is; holes stay holes, where the system's ``cp`` sees them."""
    if sys.platform == "win32":
        return Path(shutil.copytree(source, target))
    subprocess.run(["cp", "-R", source, target], check=True)
    return target
