"""What many tests share: the shipped model, drawings with captions, and a Reco of both."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from chromium_started import chromium
from learned_once import learned_once
from made_once import digests_of, sessions_of
from shapes import COLOURS, SHAPES, draw
from small_disk import mounted
from xdist.scheduler import LoadGroupScheduling

from reco_plugin import Pair, Reco
from reco_plugin.encoders import model_folder
from reco_plugin.encoders.runtimes.onnxruntime import OrtSession
from reco_plugin.types import Records

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # also where a test imports ONNX Runtime before any of ours
os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"  # read when Haystack is imported; tests reach no network
collect_ignore = ["support"]  # modules for tests to import, with no example in them
ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "triton_models"
SIZES = {"small": 8, "large": 24}
IN_RAM, ENOUGH = Path("/dev/shm"), 6 << 30


class ByFile(LoadGroupScheduling):
    """Keeps a file on one worker, unless its tests name a group: else both would make what the file's tests share."""

    def _split_scope(self, nodeid: str) -> str:
        group = super()._split_scope(nodeid)
        return nodeid.partition("::")[0] if group == nodeid else group


class WithExamples:
    """Leaves out modules of the package without an example, such as those that need torch or Ray.

    As a hook of this file itself it would be asked about ``tests/`` only.
    """

    @staticmethod
    def pytest_ignore_collect(collection_path: Path) -> bool | None:
        """Whether a file is left out."""
        of_package = collection_path.suffix == ".py" and collection_path.is_relative_to(ROOT / "reco_plugin")
        return (of_package and ">>>" not in collection_path.read_text("utf-8")) or None


def pytest_configure(config: pytest.Config) -> None:
    """Put the tests' folders into RAM where there is enough: memories wait for the disk after each write."""
    config.pluginmanager.register(WithExamples())
    if IN_RAM.is_dir() and os.access(IN_RAM, os.W_OK) and shutil.disk_usage(IN_RAM).free > ENOUGH:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(IN_RAM))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadGroupScheduling | None:
    """What ``--dist loadgroup`` means here."""
    return ByFile(config, log) if config.option.dist == "loadgroup" else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long: at the end workers have small files to share."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True, scope="session")
def no_settings_from_outside() -> Iterator[None]:
    """Tests see no RECO_* variable but those that they set themselves, and one: test processes share the cores.

    A thread of ONNX Runtime that waits for another one spins, which takes more than half of the time.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.upper().startswith("RECO_")]:
            patch.delenv(name)
        patch.setenv("RECO_THREADS", "1")
        yield


@pytest.fixture(autouse=True, scope="session")
def ctrl_c_is_heard() -> None:
    """Also where a shell that runs the tests in the background has them ignore it, and their processes with them."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def what_is_the_same_is_made_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Sessions, digests, and what memories learn: see ``support/made_once.py``."""
    shared = "PYTEST_XDIST_WORKER" in os.environ
    learned = tmp_path_factory.getbasetemp().parent / "learned" if shared else tmp_path_factory.mktemp("learned")
    learned.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch, learned_once(learned):
        patch.setattr(OrtSession, "__init__", sessions_of(MODEL))
        patch.setattr(model_folder, "sha256_file", digests_of(MODEL, model_folder.sha256_file))
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
            draw(colour, shape, radius),
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
    with Reco.open(model, memory=":memory:") as opened:
        yield opened


@pytest.fixture(scope="session")
def drawn_records(model: Path, drawings: list[Pair]) -> Records:
    """The drawings as a memory holds them: encoding them takes longer than what most tests do with them."""
    with Reco.open(model, memory=":memory:") as reco:
        reco.memory.add(drawings)
        return reco.memory.get([pair.id for pair in drawings])


@pytest.fixture
def filled(reco: Reco, drawn_records: Records) -> Reco:
    """The shipped model with the drawings in its memory."""
    reco.memory.add_records([drawn_records])
    return reco


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium for the tests of a module."""
    with chromium() as opened:
        yield opened
