"""What many tests share: the shipped model, drawings with captions, and a Reco of both."""

from __future__ import annotations

import gc
import os
import shutil
import signal
from collections.abc import Iterator
from functools import cache
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

from reco_plugin import Pair, Reco, artifact
from reco_plugin.sessions.ort import OrtSession
from reco_plugin.types import Records

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # also where a test imports ONNX Runtime before any of ours
os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"  # read when Haystack is imported; tests reach no network
collect_ignore = ["support"]  # modules for tests to import, with no example in them
ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "triton_models"
SLOW = {
    "reco_plugin/adapters",
    "reco_plugin/ingest/ray_engine.py",
    "reco_plugin/ingest/ray_worker.py",
    "reco_plugin/models",
    "tests/adapters/test_client_served.py",
    "tests/adapters/test_haystack.py",
    "tests/adapters/test_langchain.py",
    "tests/adapters/test_llamaindex.py",
    "tests/adapters/test_sentence_transformers.py",
    "tests/benchmarks/pretrain",
    "tests/benchmarks/test_torture.py",
    "tests/calibration/test_learn.py",
    "tests/calibration/test_one_image.py",
    "tests/calibration/test_small_memories.py",
    "tests/cli/test_app.py",
    "tests/cli/test_embed.py",
    "tests/cli/test_evaluate.py",
    "tests/cli/test_memory_fill.py",
    "tests/cli/test_interrupted.py",
    "tests/cli/test_memory.py",
    "tests/cli/test_memory_feedback.py",
    "tests/cli/test_memory_running.py",
    "tests/cli/test_memory_served.py",
    "tests/cli/test_memory_source.py",
    "tests/cli/test_other_encoder.py",
    "tests/client/test_away.py",
    "tests/clients",
    "tests/measure/test_page_browser.py",
    "tests/data/test_torchvision.py",
    "tests/degrade/test_opened_in_an_outage.py",
    "tests/degrade/test_traffic.py",
    "tests/demo",
    "tests/deploy",
    "tests/engines",
    "tests/examples",
    "tests/ingest/test_faults.py",
    "tests/ingest/test_folder_versions.py",
    "tests/ingest/test_full_disk.py",
    "tests/ingest/test_killed.py",
    "tests/ingest/test_memory_source.py",
    "tests/ingest/test_ray.py",
    "tests/memory/contract/test_memory_damaged.py",
    "tests/memory/contract/test_memory_served.py",
    "tests/memory/contract/test_memory_values.py",
    "tests/memory/test_folder.py",
    "tests/memory/test_search_index.py",
    "tests/preprocess/test_image.py",
    "tests/preprocess/test_text.py",
    "tests/quickstart",
    "tests/serve/dialects/test_fetch.py",
    "tests/serve/test_core_run.py",
    "tests/serve/test_memory_admin.py",
    "tests/serve/test_openapi.py",
    "tests/serve/test_page.py",
    "tests/serve/test_page_browser.py",
    "tests/serve/test_stopping.py",
    "tests/serve/test_strangers.py",
    "tests/serve/test_values.py",
    "tests/sessions/test_ort.py",
    "tests/sessions/triton",
    "tests/stack",
    "tests/test_wheel.py",
    "tests/models",
}
"""Folders and files that train, draw, wait, or start processes, clusters and browsers; they are marked ``slow``."""
SIZES = {"small": 8, "large": 24}
IN_RAM, ENOUGH = Path("/dev/shm"), 6 << 30


class Examples:
    """Passes over modules of the package without an example: to look for one, each client of an engine is imported."""

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        """Whether to pass over a module; None leaves it to others."""
        ours = collection_path.suffix == ".py" and collection_path.is_relative_to(ROOT / "reco_plugin")
        return (ours and b">>>" not in collection_path.read_bytes()) or None


class ByFile(LoadGroupScheduling):
    """Keeps a file on one worker, unless its tests name a group: else both would make what the file's tests share."""

    def _split_scope(self, nodeid: str) -> str:
        group = super()._split_scope(nodeid)
        return nodeid.partition("::")[0] if group == nodeid else group


class Fast:
    """Passes over what is slow, so that it is not even imported: torch and Ray alone take seconds."""

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        """Whether to pass over a folder or file; None leaves it to others."""
        return is_slow(collection_path) or None


def pytest_configure(config: pytest.Config) -> None:
    """See that every name in :data:`SLOW` is there, and leave out what they name where it is not wanted."""
    if gone := [name for name in sorted(SLOW) if not (ROOT / name).exists()]:
        raise pytest.UsageError(f"SLOW in tests/conftest.py names what is not there: {', '.join(gone)}")
    config.pluginmanager.register(Examples())
    if config.option.markexpr == "not slow":
        config.pluginmanager.register(Fast())
    if IN_RAM.is_dir() and os.access(IN_RAM, os.W_OK) and shutil.disk_usage(IN_RAM).free > ENOUGH:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(IN_RAM))  # memories wait for the disk after each write


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadGroupScheduling | None:
    """What ``--dist loadgroup`` means here."""
    return ByFile(config, log) if config.option.dist == "loadgroup" else None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Iterator[None]:
    """Do not look for garbage among what is imported: there is none, and looking took a fifth of collecting."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow, before ``-m`` chooses, and begin with it: at the end workers have small files to share."""
    for item in items:
        if is_slow(item.path):
            item.add_marker("slow")
    items.sort(key=lambda item: not is_slow(item.path))


@cache
def is_slow(path: Path) -> bool:
    """Whether a path is, or lies in, one of :data:`SLOW`."""
    return any(str(part.relative_to(ROOT)) in SLOW for part in (path, *path.parents) if part.is_relative_to(ROOT))


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
        patch.setattr(artifact, "sha256_file", digests_of(MODEL, artifact.sha256_file))
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
