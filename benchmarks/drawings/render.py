"""Render the drawings of an icon set to small images, once."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from reco_plugin.files import whole_file
from reco_plugin.progress import progress_bar
from reco_plugin.quickstart.dataset import SIDE

_OVERSAMPLED = 128  # twice the size, which is averaged for smoother edges


class Drawing(NamedTuple):
    """One icon of one set: its JSON file and its name there."""

    icons: Path
    name: str


class IconSet:
    """An Iconify JSON file: names to SVG."""

    def __init__(self, path: Path) -> None:
        data = json.loads(path.read_text(encoding="utf-8"))
        self._icons: dict[str, dict[str, Any]] = data["icons"]
        self._default = {"width": data.get("width", 16), "height": data.get("height", 16)}

    @property
    def names(self) -> list[str]:
        """Names of the icons, without aliases."""
        return list(self._icons)

    def svg(self, name: str) -> str:
        """One icon as an SVG document."""
        icon = self._default | self._icons[name]
        box = f"{icon.get('left', 0)} {icon.get('top', 0)} {icon['width']} {icon['height']}"
        head = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        return f'<svg {head} viewBox="{box}">{icon["body"]}</svg>'


def rasterise(svg: str) -> npt.NDArray[np.uint8]:
    """Draw one SVG on a white square; returns (SIDE, SIDE, 3) uint8."""
    import resvg_py
    from PIL import Image

    png = resvg_py.svg_to_bytes(svg_string=svg, width=_OVERSAMPLED, background="white", skip_system_fonts=True)
    with Image.open(io.BytesIO(bytes(png))) as drawn:
        flat = drawn.convert("RGB")
    if flat.size != (_OVERSAMPLED, _OVERSAMPLED):
        square = Image.new("RGB", (max(flat.size),) * 2, "white")
        square.paste(flat, tuple((max(flat.size) - side) // 2 for side in flat.size))  # type: ignore[arg-type]
        flat = square
    return np.asarray(flat.resize((SIDE, SIDE), Image.Resampling.BOX))


def render_once(drawings: Sequence[Drawing], folder: Path) -> npt.NDArray[np.uint8]:
    """Render drawings once, to a file named after their content; (N, SIDE, SIDE, 3) uint8."""
    content = json.dumps([[drawing.icons.parent.name, drawing.name] for drawing in drawings])
    path = folder / f"{hashlib.sha256(content.encode()).hexdigest()[:16]}.npy"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        sets = {icons: IconSet(icons) for icons in {drawing.icons for drawing in drawings}}
        bar = progress_bar(drawings, desc="render drawings", unit="image")
        images = np.stack([rasterise(sets[drawing.icons].svg(drawing.name)) for drawing in bar])
        with whole_file(path) as part:
            np.save(part, images)
    stored: npt.NDArray[np.uint8] = np.load(path, mmap_mode="r")
    return stored
