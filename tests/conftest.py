"""What many tests share: the shipped model, drawings with captions, and a Reco of both."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from small_disk import mounted

from reco_plugin import Pair, Reco

MODEL = Path(__file__).resolve().parents[1] / "triton_models"
COLOURS = ("red", "green", "blue", "orange")
SHAPES = ("circle", "square", "triangle")
SIZES = {"small": 8, "large": 24}


@pytest.fixture(autouse=True, scope="session")
def no_settings_from_outside() -> Iterator[None]:
    """Tests see no RECO_* variable but those that they set themselves, and one: two test processes share two cores.

    A thread of ONNX Runtime that waits for another one spins, which takes more than half of the time.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.upper().startswith("RECO_")]:
            patch.delenv(name)
        patch.setenv("RECO_THREADS", "1")
        yield


@pytest.fixture(scope="session")
def model() -> Path:
    """Folder of the shipped model."""
    return MODEL


@pytest.fixture(scope="session")
def drawings() -> list[Pair]:
    """24 drawn shapes with captions; the payload says colour, shape and radius."""
    return [
        Pair(
            f"{size}-{colour}-{shape}",
            _draw(colour, shape, radius),
            f"a {size} {colour} {shape}",
            {"colour": colour, "shape": shape, "radius": radius},
        )
        for (size, radius), colour, shape in product(SIZES.items(), COLOURS, SHAPES)
    ]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system; skips where none can be mounted."""
    with mounted(tmp_path) as place:
        yield place


@pytest.fixture
def reco(model: Path) -> Iterator[Reco]:
    """The shipped model with an empty memory in RAM."""
    with Reco.open(model, memory=":memory:", memory_kind="exact") as opened:
        yield opened


@pytest.fixture
def filled(reco: Reco, drawings: list[Pair]) -> Reco:
    """The shipped model with the drawings in its memory."""
    reco.memory.add(drawings)
    return reco


def _draw(colour: str, shape: str, radius: int) -> Image.Image:
    image = Image.new("RGB", (64, 64), "white")
    pen, box = ImageDraw.Draw(image), (32 - radius, 32 - radius, 32 + radius, 32 + radius)
    match shape:
        case "circle":
            pen.ellipse(box, fill=colour)
        case "square":
            pen.rectangle(box, fill=colour)
        case _:
            pen.polygon([(32, box[1]), (box[0], box[3]), (box[2], box[3])], fill=colour)
    return image
