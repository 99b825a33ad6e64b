"""Write a model folder so that it is whole or absent."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..artifact import MANIFEST
from ..errors import ArtifactError


@contextmanager
def whole_model(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` to write to; takes its place when the block ends well, else removed.

    Raises:
        ArtifactError: ``out`` holds something that is no model folder; or it cannot be written there.
    """
    if not out.name:  # it cannot be replaced by another folder
        raise ArtifactError(f"--out {str(out)!r} is the working directory: name a folder in it")
    empty = out.is_dir() and not any(out.iterdir())
    if out.exists() and not empty and not _is_model(out / MANIFEST):
        raise ArtifactError(f"{out} exists and is no model folder: choose another --out")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise ArtifactError(f"{out} cannot be written: {error.strerror or error}") from None
    try:
        yield staging
        _swap(staging, out)
    except OSError as error:
        raise ArtifactError(f"{out} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _is_model(manifest: Path) -> bool:
    """Whether a file is a manifest of ours, of whatever version, and not that of a web page."""
    try:
        content = json.loads(manifest.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"format", "digest", "graphs"} <= content.keys()


def _swap(staging: Path, out: Path) -> None:
    """Put the finished folder in the target's place."""
    staging.chmod(0o755)
    old = out.with_name(f".{out.name}.old.{os.getpid()}")
    if out.exists():
        out.rename(old)
    staging.rename(out)
    shutil.rmtree(old, ignore_errors=True)
