"""Ingest on a Ray cluster: the same result as in one process, also when workers are killed."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from ray_parts import Drawings
from typer.testing import CliRunner

from reco_plugin import Reco
from reco_plugin.cli.app import app
from reco_plugin.errors import ArtifactError, ConfigError, DataError, MissingExtra
from reco_plugin.ingest.fill import ingest
from reco_plugin.ingest.prepare import Encoded, Skipped
from reco_plugin.ingest.run_options import IngestOptions
from reco_plugin.sources.rows import Rows

ray = pytest.importorskip("ray", reason="pip install 'reco-plugin[ray]'")
from reco_plugin.ingest import ray_engine  # noqa: E402
from reco_plugin.ingest.ray_engine import job_of  # noqa: E402
from reco_plugin.ingest.run_options import Cluster  # noqa: E402

pytestmark = [pytest.mark.ray, pytest.mark.xdist_group("ray")]  # one cluster at a time is enough for two cores
SUPPORT = Path(__file__).resolve().parents[1] / "support"
ONE, TWO = Cluster(workers=1), Cluster(workers=2)  # each worker takes seconds to start
ROWS, PARTS = 40, 4


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """As a command starts it: two encoding workers and two reading ones share a CPU; the CPUs need not be there."""
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("PYTHONPATH", str(SUPPORT))  # where workers find the parts of these tests
        patch.setenv("RAY_worker_niceness", "0")  # else they wait for the tests of another process
        for early in ("enable_worker_prestart", "prestart_worker_first_driver"):  # workers that nothing has asked for
            patch.setenv(f"RAY_{early}", "0")
        patch.setattr(ray, "init", partial(ray.init, num_cpus=3, object_store_memory=2 * 10**8))
        for patience in (2, 1, 0):
            try:
                stack.enter_context(ray_engine.connect_ray(None))
                break
            except ConfigError as error:  # Ray waits 30 s for its own node, which a cold and busy machine can exceed
                ray.shutdown()
                if not patience or "timed out during startup" not in str(error):
                    raise
        yield
    assert not ray.is_initialized()


@pytest.fixture
def folder(drawings: Any, tmp_path: Path) -> Path:
    """40 drawings, one of them no image."""
    folder = tmp_path / "drawings"
    folder.mkdir()
    for number in range(ROWS):
        drawing = drawings[number % len(drawings)]
        picture: Image.Image = drawing.image.rotate(number, fillcolor="white")
        picture.save(folder / f"{number:02}-{drawing.id}.png")
    next(folder.glob("11-*")).write_bytes(b"no image at all")
    return folder


def rows(folder: Path, **special: dict[str, Any]) -> Rows:
    """The drawings in parts; ``part_2`` says what is special about that one."""
    size = ROWS // PARTS
    parts = (Drawings(folder, n * size, n * size + size, **special.get(f"part_{n}", {})) for n in range(PARTS))
    return Rows("drawings", tuple(parts), ROWS)


def options(path: Path) -> IngestOptions:
    """Small batches, so that a part has more than one."""
    return IngestOptions(batch_size=4, rejected=path, max_error_rate=1.0)


@pytest.fixture
def expected(folder: Path, model: Path, tmp_path: Path) -> dict[str, Any]:
    """What one process makes of the drawings."""
    with Reco.open(model, ":memory:") as reco:
        outcome = ingest(rows(folder), reco, options(tmp_path / "expected.jsonl"))
        assert (outcome.added, outcome.rejected) == (33, 7)
        return held(reco) | {"rejected": listed(tmp_path / "expected.jsonl"), "outcome": counts(outcome)}


def held(reco: Reco) -> dict[str, Any]:
    """Everything that a memory holds."""
    found = reco.memory.get(sorted(id_ for id_, _ in reco.memory.store.payloads()))
    return {"ids": found.ids, "image": found.image, "text": found.text, "payloads": [dict(p) for p in found.payloads]}


def listed(path: Path) -> list[dict[str, str]]:
    """The list of rejected rows."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def counts(outcome: Any) -> dict[str, Any]:
    return {name: value for name, value in outcome.to_dict().items() if name not in ("seconds", "files")}


def assert_same(reco: Reco, outcome: Any, rejected: Path, expected: dict[str, Any], atol: float = 1e-6) -> None:
    found = held(reco)
    assert found["ids"] == expected["ids"]
    assert found["payloads"] == expected["payloads"]
    np.testing.assert_allclose(found["image"], expected["image"], rtol=0, atol=atol)
    np.testing.assert_allclose(found["text"], expected["text"], rtol=0, atol=atol)
    assert listed(rejected) == expected["rejected"]
    assert counts(outcome) == expected["outcome"]


def kill_encoders() -> int:
    """kill -9 for every process that encodes, among those that this one began; how many there were."""
    killed = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"EncodeChunks" in (process / "cmdline").read_bytes() and _is_ours(int(process.name)):
                os.kill(int(process.name), signal.SIGKILL)
                killed += 1
        except (FileNotFoundError, ProcessLookupError):
            continue
    return killed


def _is_ours(process: int) -> bool:
    while process > 1 and process != os.getpid():
        status = Path("/proc", str(process), "status").read_text(encoding="utf-8")
        process = int(status.split("PPid:")[1].split()[0])
    return process == os.getpid()


@pytest.mark.usefixtures("cluster")
def test_the_result_is_that_of_one_process_and_a_second_run_encodes_nothing(folder, reco, tmp_path, expected):
    rejected = tmp_path / "rejected.jsonl"
    outcome = ingest(rows(folder), reco, options(rejected), cluster=TWO)
    assert_same(reco, outcome, rejected, expected)

    job = job_of(reco, options(rejected))
    again = list(ray_engine.run_job(rows(folder), job, ONE))
    assert len(again) == ROWS
    assert [type(item) for item in again].count(Skipped) == 33
    assert not any(isinstance(item, Encoded) for item in again)


@pytest.mark.usefixtures("cluster")
def test_readers_and_encoders_that_are_killed_change_nothing(folder, reco, tmp_path, expected):
    rejected, killed = tmp_path / "rejected.jsonl", tmp_path / "killed"
    source = rows(folder, part_2={"waits_for": killed}, part_3={"dies": "the first time"})
    found: list[int] = []

    def progress(_: int, __: int) -> None:
        if not found:
            found.append(kill_encoders())
            killed.touch()  # the rest can be encoded by none of those

    outcome = ingest(source, reco, options(rejected), cluster=TWO, progress=progress)
    assert found[0] > 0
    assert folder.with_name("died-30").exists()
    assert_same(reco, outcome, rejected, expected)


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("part", "dies", "lost_over"), [(2, "always", "2 times over reading"), (1, "encoding", "2 times over encoding")]
)
def test_what_always_kills_its_worker_ends_the_run_and_what_came_before_is_whole(
    folder, reco, tmp_path, expected, monkeypatch, part, dies, lost_over
):
    monkeypatch.setattr(ray_engine, "_ATTEMPTS", 2)  # of 4: each is a worker that starts
    rejected, first = tmp_path / "rejected.jsonl", part * ROWS // PARTS
    with pytest.raises(DataError, match=rf"lost {lost_over} drawings\[{first}:{first + 10}\].*run it again to go on"):
        ingest(rows(folder, **{f"part_{part}": {"dies": dies}}), reco, options(rejected), cluster=ONE)
    before = [id_ for id_ in expected["ids"] if id_ < str(first)]  # two batches and a half of each part
    assert held(reco)["ids"] == before
    assert listed(rejected) == [row for row in expected["rejected"] if row["id"] < str(first)]

    outcome = ingest(rows(folder), reco, options(rejected))  # here too, and in less time
    assert (outcome.unchanged, outcome.added) == (len(before), 33 - len(before))
    assert held(reco)["ids"] == expected["ids"]


@pytest.mark.usefixtures("cluster")
def test_an_error_of_a_worker_arrives_as_what_it_is(folder, reco, tmp_path):
    job = job_of(reco, options(tmp_path / "rejected.jsonl"))
    other = replace(job, fingerprint=replace(job.fingerprint, digest="0" * 64))
    with pytest.raises(ArtifactError, match="every machine must see the same model folder"):
        list(ray_engine.run_job(rows(folder), other, ONE))


@pytest.mark.usefixtures("cluster")
def test_workers_that_the_cluster_has_no_room_for_are_refused(folder, reco, tmp_path):
    job = job_of(reco, options(tmp_path / "rejected.jsonl"))
    of_gpus = replace(job, settings=job.settings.model_copy(update={"provider": "cuda"}))
    with pytest.raises(ConfigError, match="and 0 GPUs"):
        list(ray_engine.run_job(rows(folder), of_gpus, ONE))


@pytest.mark.usefixtures("cluster")
def test_a_command_on_the_cluster_finds_relative_paths(folder, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # after the workers' machine was started
    monkeypatch.setenv("RECO_MODEL", str(model))
    images = sorted(folder.iterdir())
    table = [f"{path.stem},{path.relative_to(tmp_path)},{path.stem[3:]}" for path in images]
    Path("shop.csv").write_text("\n".join(["id,image,text", *table[:20]]))
    command = ["memory", "build", "shop.csv", "--as", "shop", "--batch-size", "4", "--json", "--memory"]
    spread = [*command, "spread", "--engine", "ray", "--workers", "1"]
    alone, told = (
        json.loads(CliRunner().invoke(app, said, catch_exceptions=False).stdout) | {"files": None}
        for said in ([*command, "alone"], spread)
    )
    assert (alone["added"], alone["rejected"]) == (19, 1)
    assert told == alone
    assert [row["id"] for row in listed(Path("spread.rejected.jsonl"))] == [images[11].stem]


def test_options_of_a_cluster_want_one():
    result = CliRunner().invoke(app, ["memory", "build", "no.csv", "--workers", "2"])
    assert result.exit_code == 1
    assert "--workers 2 is about a Ray cluster: give --engine ray" in result.stderr


def test_no_key_is_sent_to_workers(model):
    with Reco.open(model, ":memory:", memory_api_key="secret-key") as reco:
        sent = job_of(reco, IngestOptions()).settings
    assert sent.memory_api_key is None
    assert Path(sent.model).is_absolute()


def test_without_ray_the_install_line_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "reco_plugin.ingest.ray_engine")
    with pytest.raises(MissingExtra, match=r"reco-plugin\[ray\]"):
        import reco_plugin.ingest.ray_engine  # noqa: F401


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("ray://127.0.0.1:1", "ray job submit"),
        ("127.0.0.1:1", "no Ray cluster at 127.0.0.1:1"),
        ("head", "no Ray cluster at head"),
    ],
)
def test_an_address_where_no_cluster_can_be_joined_is_refused(address, told):
    with pytest.raises(ConfigError, match=told), ray_engine.connect_ray(address):
        pass
