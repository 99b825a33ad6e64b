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

TESTS = Path(__file__).resolve().parent
MODEL = TESTS.parent / "triton_models"
SLOW = {
    "adapters/test_client_served.py",
    "adapters/test_clip_benchmark.py",
    "adapters/test_haystack.py",
    "adapters/test_langchain.py",
    "adapters/test_llamaindex.py",
    "adapters/test_mteb.py",
    "adapters/test_sentence_transformers.py",
    "benchmarks/test_load.py",
    "benchmarks/test_million.py",
    "benchmarks/test_package_sets.py",
    "benchmarks/test_readers.py",
    "benchmarks/test_serving.py",
    "cli/test_cli_memory_served.py",
    "cli/test_cli_memory_source.py",
    "degrade/test_killed_server.py",
    "degrade/test_traffic.py",
    "demo",
    "deploy",
    "examples/test_search_app.py",
    "fit",
    "ingest/test_faults.py",
    "ingest/test_full_disk.py",
    "ingest/test_ray.py",
    "quickstart",
    "report/test_report_browser.py",
    "serve/dialects/test_dialect_openai.py",
    "serve/test_core_run.py",
    "serve/test_openapi.py",
    "serve/test_page_browser.py",
    "study",
    "test_data_torchvision.py",
    "test_memory_faults.py",
    "train",
    "triton",
}
"""Folders and files that train, draw, or start processes, clusters and browsers; they are marked ``slow``."""
COLOURS = ("red", "green", "blue", "orange")
SHAPES = ("circle", "square", "triangle")
SIZES = {"small": 8, "large": 24}


def pytest_configure() -> None:
    """Refuse to run while a name in :data:`SLOW` is that of nothing."""
    if gone := [name for name in sorted(SLOW) if not (TESTS / name).exists()]:
        raise pytest.UsageError(f"SLOW in tests/conftest.py names what is not there: {', '.join(gone)}")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Nothing slow is imported where it is not wanted: torch and Ray alone take seconds."""
    return True if config.option.markexpr == "not slow" and is_slow(collection_path) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow."""
    for item in items:
        if is_slow(item.path):
            item.add_marker("slow")


def is_slow(path: Path) -> bool:
    """Whether a path is, or lies in, one of :data:`SLOW`."""
    return any(str(part.relative_to(TESTS)) in SLOW for part in (path, *path.parents) if part.is_relative_to(TESTS))


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
