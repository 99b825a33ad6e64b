"""Render the drawings of an icon set to small images, once, in parallel."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from reco_plugin.files import whole_file
from reco_plugin.progress import progress_bar
from reco_plugin.quickstart.dataset import SIDE

from .packages import read_json

_OVERSAMPLED = 128  # rendered at twice the size and averaged: smoother edges than resvg's own antialiasing


class Drawing(NamedTuple):
    """One icon of one set: its JSON file and its name there."""

    icons: Path
    name: str


class IconSet:
    """An Iconify JSON file: names to SVG."""

    def __init__(self, path: Path) -> None:
        data = read_json(path)
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


def _render_some(drawings: Sequence[Drawing]) -> npt.NDArray[np.uint8]:
    out = np.empty((len(drawings), SIDE, SIDE, 3), np.uint8)
    for row, (path, name) in enumerate(drawings):
        out[row] = rasterise(_icons(path).svg(name))
    return out


_icons = lru_cache(maxsize=2)(IconSet)
"""Read once, though the next drawings of a set are another call: they come set by set."""


def render(drawings: Sequence[Drawing], processes: int | None = None) -> npt.NDArray[np.uint8]:
    """Draw all; returns (N, SIDE, SIDE, 3) uint8 in the order given, with a progress bar."""
    chunks = [drawings[start : start + 256] for start in range(0, len(drawings), 256)]
    out = np.empty((len(drawings), SIDE, SIDE, 3), np.uint8)
    workers = min(processes or os.cpu_count() or 1, len(chunks) or 1)
    with (
        ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool,
        progress_bar(total=len(drawings), desc="render drawings", unit="image") as bar,
    ):
        done = 0
        for part in pool.map(_render_some, chunks):
            out[done : done + len(part)] = part
            done += len(part)
            bar.update(len(part))
    return out


def render_once(drawings: Sequence[Drawing], folder: Path) -> npt.NDArray[np.uint8]:
    """Render once, into a file named after the drawings; (N, SIDE, SIDE, 3) uint8."""
    content = [[drawing.icons.parent.name, drawing.name] for drawing in drawings]
    return kept(folder, content, lambda: render(drawings))


def kept(folder: Path, content: object, make: Callable[[], npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """Make an array once; later calls with equal JSON-like content map the stored one into memory."""
    path = folder / f"{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]}.npy"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        images = make()
        with whole_file(path) as part:
            np.save(part, images)
    stored: npt.NDArray[np.uint8] = np.load(path, mmap_mode="r")
    return stored
