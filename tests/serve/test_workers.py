"""``reco serve --workers 2`` as processes: one memory, one set of metrics, and a worker that is killed."""

from __future__ import annotations

import errno
import os
import pickle
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from functools import partial
from multiprocessing.connection import SocketListener
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest
from live_service import wait_until
from typer.testing import CliRunner

from reco_plugin.artifact import Artifact
from reco_plugin.calibration.learner import Learner
from reco_plugin.cli.app import app
from reco_plugin.config import load_settings
from reco_plugin.encode import Encoder
from reco_plugin.errors import ConfigError, InputError
from reco_plugin.machine.cores import cores
from reco_plugin.memory import open_memory
from reco_plugin.memory.versions import FolderVersions
from reco_plugin.pairs import PairMemory
from reco_plugin.reco import Reco
from reco_plugin.serve.edge import Edge
from reco_plugin.serve.embedder import Embedder
from reco_plugin.serve.health import Health
from reco_plugin.serve.metrics import Metrics
from reco_plugin.serve.run import check_address
from reco_plugin.serve.settings import ServeSettings, load_serve_settings
from reco_plugin.serve.workers import together
from reco_plugin.serve.workers.line import Answering, OwnerLine
from reco_plugin.serve.workers.owned import MemoryTold, OwnedPairs
from reco_plugin.serve.workers.owner import Beat, Owner
from reco_plugin.serve.workers.together import how_many, serve_together, share_of
from reco_plugin.serve.workers.worker import Member, WorkerJob
from reco_plugin.types import Records, Search

from .test_core_run import command, environment

ADMIN = {"authorization": "Bearer adm"}
ASK = {"model": "clip", "input": ["a red fox"]}


class Running(NamedTuple):
    """A service of two workers."""

    process: subprocess.Popen[bytes]
    url: str
    memory: Path
    log: Path

    @property
    def workers(self) -> list[int]:
        """Ids of the workers' processes."""
        listed = subprocess.run(
            ["pgrep", "-P", str(self.process.pid), "-f", "spawn_main"], capture_output=True, text=True, check=False
        )
        return [int(word) for word in listed.stdout.split()]

    def connect(self, worker: int) -> httpx.Client:
        """A client whose one connection is to this worker: the kernel chooses, so it is tried until it is."""
        for _ in range(200):
            limits = httpx.Limits(max_connections=1, keepalive_expiry=None)
            client = httpx.Client(base_url=self.url, headers=ADMIN, timeout=60, limits=limits)
            with client.stream("GET", "/livez") as answer:
                mine = answer.extensions["network_stream"].get_extra_info("socket")
                answer.read()
                if _is_of(worker, mine.getsockname()[1], mine.getpeername()[1]):
                    return client
            client.close()
        raise AssertionError(f"no connection to worker {worker}")


def _is_of(process: int, port: int, service: int) -> bool:
    """Whether a process has the other end of a connection from this port to the service's."""
    ends = [f"{service:04X}", f"{port:04X}", "01"]  # others on this machine may have a connection from such a port, too
    rows = [line.split() for line in Path("/proc/net/tcp").read_text("utf-8").splitlines()[1:]]
    (node,) = [row[9] for row in rows if [row[1][-4:], row[2][-4:], row[3]] == ends]
    names = []
    for entry in Path(f"/proc/{process}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            names.append(str(entry.readlink()))
    return f"socket:[{node}]" in names


def start(folder: Path, model: Path, *flags: str, **variables: str) -> Running:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log, env = folder / "log", environment(RECO_SERVE_ADMIN_KEY="adm", **variables)
    words = command("--model", str(model), "--workers", "2", "--port", str(port), *flags)
    with log.open("wb") as out:
        process = subprocess.Popen(words, cwd=folder, env=env, stderr=out)
    return Running(process, f"http://127.0.0.1:{port}", folder / "memory", log)


def wait_for(running: Running) -> None:
    """Until all workers are ready."""

    def ready() -> bool:
        assert running.process.poll() is None, running.log.read_text("utf-8")
        try:
            return httpx.get(f"{running.url}/readyz", timeout=60).is_success
        except httpx.TransportError:
            return False

    wait_until(ready)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[Running]:
    """It is killed in the end, and its workers with it."""
    running = start(tmp_path_factory.mktemp("workers"), model, "--drain-s", "0")
    try:
        wait_for(running)
        yield running
        workers = running.workers
        assert len(workers) == 2
        running.process.kill()
        running.process.wait()
        wait_until(lambda: not any(Path(f"/proc/{worker}/fd/0").exists() for worker in workers))
    finally:
        running.process.kill()
        running.process.wait()


def pair(name: str, red_square: str) -> dict[str, Any]:
    return {"pairs": [{"id": name, "text": f"a red square {name}", "image": red_square}]}


def counted(client: httpx.Client, route: str) -> float:
    shown = client.get("/metrics").text
    found = re.search(rf'reco_http_requests_total{{route="{route}",status="200"}} ([\d.]+)', shown)
    return float(found[1]) if found else 0.0


def test_what_is_written_through_one_is_read_through_the_other(service, red_square):
    one, other = service.workers
    with closing(service.connect(one)) as writer, closing(service.connect(other)) as reader:
        told = writer.post("/v1/memory/pairs", json=pair("written", red_square)).json()
        assert told["stored"] == 1
        assert [row["id"] for row in reader.get("/v1/memory/pairs?id=written").json()["data"]] == ["written"]
        found = reader.post("/v1/memory/search", json={"text": "a red square written", "k": 1}).json()["data"]
        assert [hit["id"] for hit in found] == ["written"]
        infos = [client.get("/v1/memory").json() for client in (writer, reader)]
        assert infos[0] == infos[1]
        assert infos[0]["pairs"] == told["pairs"]
        removed = reader.delete("/v1/memory/pairs?id=written").json()
        assert (removed["removed"], writer.get("/v1/memory/pairs?id=written").json()["data"]) == (1, [])
        refused = writer.post("/v1/memory/search", json={"text": "x", "where": {"shop": {"near": 1}}})
        assert refused.status_code == 400  # an error of the other process, as it is


def test_metrics_are_of_all(service):
    one, other = service.workers
    with closing(service.connect(one)) as first, closing(service.connect(other)) as second:
        before = counted(first, "/v1/embeddings")
        for client in (first, first, second):
            assert client.post("/v1/embeddings", json=ASK).is_success
        wait_until(lambda: counted(first, "/v1/embeddings") == counted(second, "/v1/embeddings") == before + 3)
        assert "reco_workers 2.0" in first.get("/metrics").text


def test_another_version_is_seen_by_all_when_it_is_put_to_use(service, model):
    fingerprint = Artifact.load(model).manifest.fingerprint
    versions = FolderVersions(service.memory)
    name = versions.begin(fingerprint)
    vectors = np.eye(2, fingerprint.dimension, dtype=np.float32)
    with closing(open_memory(versions.folder(name), fingerprint)) as built:
        built.upsert(Records(["new-1", "new-2"], vectors, vectors, [{}, {}]))
    versions.finish(name, 2, fingerprint)
    one, other = service.workers
    with closing(service.connect(one)) as first, closing(service.connect(other)) as second:
        before = [client.get("/v1/memory").json()["state"] for client in (first, second)]
        used = first.post("/v1/memory/use", json={"name": name}).json()
        for client in (first, second):
            info = client.get("/v1/memory").json()
            assert (info["pairs"], info["state"], Path(info["location"]).name) == (2, used["state"], name)
            late = client.post("/v1/memory/settle", headers={"x-reco-memory-state": before[0]})
            assert (late.status_code, late.json()["error"]["code"]) == (409, "memory_moved")
            body = {"vectors": [vectors[0].tolist()], "modality": "text", "explain": True, "k": 1}
            (asked,) = client.post("/v1/refine", json=body).json()["data"]
            assert asked["used"][0]["id"] == "new-1"
    assert before == [before[0]] * 2 != [used["state"]] * 2


def test_a_killed_worker_takes_only_its_own_requests_along_and_is_replaced(service, red_square):
    one, other = service.workers
    with closing(service.connect(one)) as doomed, closing(service.connect(other)) as kept:
        before = counted(kept, "/v1/embeddings") + 1
        assert doomed.post("/v1/memory/pairs", json=pair("durable", red_square)).is_success
        assert doomed.post("/v1/embeddings", json=ASK).is_success
        wait_until(lambda: counted(kept, "/v1/embeddings") == before)  # what it counted last would be lost with it
        os.kill(one, signal.SIGKILL)
        with pytest.raises(httpx.TransportError):
            doomed.post("/v1/embeddings", json=ASK)
        assert kept.post("/v1/embeddings", json=ASK).is_success
        assert kept.get("/readyz").is_success
        wait_until(lambda: len(service.workers) == 2)
        (fresh,) = set(service.workers) - {other}
        wait_until(lambda: _listens(fresh, service.url))
        with closing(service.connect(fresh)) as back:
            assert back.post("/v1/embeddings", json=ASK).is_success
            assert [row["id"] for row in back.get("/v1/memory/pairs?id=durable").json()["data"]] == ["durable"]
            wait_until(lambda: counted(back, "/v1/embeddings") == before + 2)
        assert "reco_workers_replaced_total 1.0" in kept.get("/metrics").text
    assert "worker" in service.log.read_text("utf-8")


def _listens(process: int, url: str) -> bool:
    port = int(url.rpartition(":")[2])
    rows = [line.split() for line in Path("/proc/net/tcp").read_text("utf-8").splitlines()[1:]]
    nodes = {f"socket:[{row[9]}]" for row in rows if int(row[1].rpartition(":")[2], 16) == port and row[3] == "0A"}
    try:
        return any(str(entry.readlink()) in nodes for entry in Path(f"/proc/{process}/fd").iterdir())
    except OSError:
        return False


def test_a_command_finds_the_service_that_has_the_folder(service):
    done = CliRunner().invoke(app, ["memory", "info", "--memory", str(service.memory)])
    assert done.stdout.startswith("served memory at "), done.stderr


def test_the_port_is_taken_for_others(service):
    with pytest.raises(ConfigError, match="Address already in use"):
        check_address(ServeSettings(port=int(service.url.rpartition(":")[2]), workers=2))


def test_sigterm_drains_all(tmp_path, model):
    """Of a service with a folder, of which a worker was killed and replaced."""
    running = start(tmp_path, model, "--drain-s", "4")

    def says_goodbye(client: httpx.Client) -> bool:
        """Whether its worker has begun to drain; it answers all the same."""
        answer = client.post("/v1/embeddings", json=ASK)
        assert answer.status_code == 200
        return answer.headers.get("connection") == "close"

    try:
        wait_for(running)
        one, other = running.workers
        os.kill(one, signal.SIGKILL)
        wait_until(lambda: one not in running.workers and len(running.workers) == 2)
        (fresh,) = set(running.workers) - {other}
        wait_until(lambda: _listens(fresh, running.url))
        with ExitStack() as held:
            clients = [held.enter_context(closing(running.connect(worker))) for worker in running.workers]
            assert not any(says_goodbye(client) for client in clients)
            running.process.send_signal(signal.SIGTERM)
            for client in clients:
                wait_until(partial(says_goodbye, client))
        assert running.process.wait(60) == 0
    finally:
        running.process.kill()
        running.process.wait()


def test_it_ends_where_no_worker_can_serve(tmp_path, model):
    """As where the memory's server is down, and nobody wants answers without it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    running = start(tmp_path, model, "--memory", nobody, RECO_ON_MEMORY_FAILURE="fail")
    assert running.process.wait(60) == 3
    assert "cannot serve: " in running.log.read_text("utf-8")


def test_a_worker_that_says_nothing_or_that_it_hangs_is_lost():
    owner = Owner(load_settings(memory="http://localhost:6333"), None, 1.0)
    owner.started(0)
    assert not owner.hangs(0, 0.0)  # it loads its model
    owner.beat(Beat(0, 0, finishes=False, ready=True, hangs=False, families=[]), -1)
    assert (owner.hangs(0, 60.0), owner.hangs(0, 0.0), owner.hangs(1, 0.0)) == (False, True, False)
    owner.beat(Beat(0, 0, finishes=False, ready=True, hangs=True, families=[]), -1)
    assert owner.hangs(0, 60.0)


@pytest.mark.parametrize(
    ("ready", "code", "longest_s"),
    [(True, -9, 0.5), (False, -9, 30), (True, 3, 30)],  # 3: it could not listen
)
def test_a_worker_that_served_is_replaced_at_once_however_often_it_is_killed(ready, code, longest_s):
    owner = Owner(load_settings(memory="http://localhost:6333"), None, 1.0)
    job: Any = None  # none is started here
    crew = together._Crew(owner, job, 1, ServeSettings())
    crew._said = True  # all were ready once
    post, process, pauses = together._Post(0), Ended(code), []
    for death in range(10):
        owner.started(0)
        owner.beat(Beat(0, 0, finishes=False, ready=ready, hangs=False, families=[]), -1)
        post.began = death
        crew._has_ended(post, process, death)
        pauses.append(post.again_at - death)
    assert max(pauses) == longest_s


class Ended(BaseProcess):
    """A process that has ended."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code

    @property
    def exitcode(self) -> int:
        return self.code

    def join(self, timeout: float | None = None) -> None:
        return None


def test_what_only_one_process_can_have_is_refused(model):
    settings = load_settings(model=model, memory=":memory:")
    with pytest.raises(ConfigError, match="page_index is a folder"):
        serve_together(settings, ServeSettings(page_index="nowhere"), 2)
    with pytest.raises(ConfigError, match="triton_url"):
        serve_together(load_settings(model=model, triton_url="localhost"), ServeSettings(), 2)


def test_sockets_that_cannot_be_made_are_an_error_of_the_settings(model, tmp_path, monkeypatch):
    place = tmp_path / ("long" * 30)  # a socket's path has at most 107 bytes
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    monkeypatch.setattr(together, "share_cores", lambda _: None)
    with pytest.raises(ConfigError, match=r"no sockets .*too long.* TMPDIR"):
        serve_together(load_settings(model=model, memory=":memory:"), ServeSettings(port=0), 2)


def test_a_worker_that_loaded_its_model_while_another_version_was_put_to_use_begins_with_that(model, tmp_path):
    settings = load_settings(model=model, memory=str(tmp_path / "memory"))
    fingerprint = Artifact.load(model).manifest.fingerprint
    owner = Owner(settings, together._pairs_of(settings), 1.0)
    versions, vectors = FolderVersions(tmp_path / "memory"), np.eye(2, fingerprint.dimension, dtype=np.float32)
    name = versions.begin(fingerprint)
    with closing(open_memory(versions.folder(name), fingerprint)) as built:
        built.upsert(Records(["a", "b"], vectors, vectors, [{}, {}]))
    versions.finish(name, 2, fingerprint)
    answering, line = Answering(str(tmp_path / "s"), owner.functions()), OwnerLine(str(tmp_path / "s"))
    job = WorkerJob(0, "", settings, ServeSettings(), "", (), socket.socket(), owned=True, first=False)
    with job.door, Reco.of(settings, pairs_of=lambda encoder: OwnedPairs(line, encoder, 1)) as reco:
        owner.started(0)
        owner.use(name)
        edge = Edge(Embedder(reco, job.serve), job.serve)
        told, member = (edge, Health(edge), Metrics(edge)), Member(job, line, is_warm=True)
        member.begin(*told)
        assert reco.memory.search(vectors[0], k=1).ids == [["a"]]
        assert owner.hangs(0, 0.0)  # it was heard of, so another version waits for it
        member.end(*told)
    answering.close()
    owner.close()


@pytest.fixture
def owner(model, drawn_records) -> Iterator[Owner]:
    """A memory with the drawings."""
    settings = load_settings(model=model, memory=":memory:")
    artifact = Artifact.load(settings.model)
    encoder = Encoder(artifact, settings)
    pairs = PairMemory(open_memory(":memory:", artifact.manifest.fingerprint), encoder)
    pairs.add_records([drawn_records])
    made = Owner(settings, pairs, 1.0)
    yield made
    made.close()


@pytest.fixture
def two(owner, tmp_path) -> Iterator[tuple[PairMemory, OwnedPairs, OwnedPairs]]:
    """The memory, and how two workers have it; in this process."""
    pairs = owner._pairs
    encoder = pairs.encoder
    answering, lines = Answering(str(tmp_path / "s"), owner.functions()), [OwnerLine(str(tmp_path / "s")) for _ in "ab"]
    one, other = (OwnedPairs(line, encoder, 10) for line in lines)
    yield pairs, one, other
    answering.close()
    for line in lines:
        line.close()


def test_a_worker_has_the_memory_as_the_process_that_opened_it(two, drawn_records):
    pairs, one, other = two
    ids, query = list(drawn_records.ids), drawn_records.text[:3]
    for there in (one, other):
        assert len(there) == len(pairs) == len(ids)
        assert there.searches.header == pairs.searches.header
        assert there.calibration is not None
        found, expected = (each.store.search(Search(query, "text", "image", 4)) for each in (there, pairs))
        assert found.ids == expected.ids
        np.testing.assert_array_equal(found.vectors, expected.vectors)
        assert sorted(id_ for batch in there.store.scroll(7) for id_ in batch.ids) == sorted(ids)
        assert dict(there.store.payloads()) == dict(pairs.store.payloads())
        assert list(there.get(ids[2:4]).ids) == ids[2:4]
        with pytest.raises(InputError, match="filter 'shop'"):
            there.search("x", where={"shop": {"near": 1}})


def test_a_worker_lets_the_process_with_the_memory_learn(two):
    pairs, one, other = two
    pairs.remove(list(dict(pairs.store.payloads()))[:2])
    runs = one.ask_to_learn()
    assert (runs.asked, runs.failed) == (1, "")
    wait_until(lambda: other.asked_runs.ended == 1)
    ended = other.asked_runs
    assert (ended.done, ended.failed, one.ask_to_learn().asked) == (ended.total, "", 2)
    assert pairs.calibration.pairs == len(pairs)


def test_what_workers_say_at_the_same_time_is_all_kept(two, drawn_records):
    pairs, one, other = two
    for there, row in ((one, 0), (other, 1), (one, 2)):  # neither has heard the other
        there.store.change_said([{"id": str(row), "n": row}], ())
    assert list(pairs.store.header.said) == ["0", "1", "2"]
    for there in (one, other):
        there.look()
        assert there.searches.header == pairs.store.header
    other.store.change_said((), ["0", "1", "2"])
    first = one.reject(drawn_records.text[0], drawn_records.ids[0])
    late = OwnedPairs(other._line, other.encoder, 10)
    other.reject(drawn_records.text[1], drawn_records.ids[1])
    again = late.reject(drawn_records.text[0], drawn_records.ids[0], right=True)
    assert [said.right for said in one.opinions] == [False, True]
    assert again in late.opinions
    assert first not in other.opinions, "the newest word on a query and an answer counts"


def test_what_is_said_through_one_worker_is_listed_by_the_other_at_once(two, drawn_records):
    _, one, other = two
    said = one.reject(drawn_records.text[0], drawn_records.ids[0])
    assert other.opinions == (said,)


def test_an_answer_that_is_late_takes_nothing_back(two):
    _, one, _ = two
    before = one.known
    one.store.change_said([{"id": "a"}], ())
    one.look()
    one.adopt(before)
    assert (one.known.revision, one.searches.header.said) == (before.revision + 1, {"a": {"id": "a"}})


def test_a_worker_is_told_only_what_is_new(two):
    pairs, one, other = two
    said = [{"id": str(number), "n": number, "query": f"{number:01400}"} for number in range(100)]
    other.store.change_said(said, ())
    one.look()
    known = one.known
    other.store.change_said([{"id": "late", "n": 1000}], ["3"])
    told = one._line.ask("look", known.moves, known.revision)
    assert len(pickle.dumps(told)) < 3_000
    assert len(pickle.dumps(pairs.store.header)) > 140_000
    other.store.change_said([{"id": "later", "n": 1001}], ())
    one.look()
    assert one.searches.header == pairs.store.header
    assert one.adopt(told), "it is older than what is known"
    assert one.searches.header == pairs.store.header
    newer = MemoryTold(**vars(told) | {"revision": one.known.revision + 1, "version": one.version + 1})
    assert not one.adopt(newer), "news of a header that is not known any more"
    pairs.store.set_calibration({})
    one.look()
    assert one.searches.header == pairs.store.header


def test_an_opinion_counts_as_a_change_for_all_workers(two):
    _, one, other = two
    before = one.version
    one.store.change_said([{"id": "a"}], ())
    for there in (one, other):
        there.look()
        assert there.version > before


def test_a_worker_that_removes_pairs_leaves_learning_to_the_process_that_has_the_memory(
    two, drawn_records, monkeypatch
):
    pairs, one, _ = two
    begun: list[Learner] = []
    monkeypatch.setattr("reco_plugin.calibration.learner.ENOUGH", 1)
    monkeypatch.setattr(Learner, "_do_behind", lambda self, _: begun.append(self))
    one.learns_behind = True  # as in a service
    gone = list(drawn_records.ids[len(drawn_records) // 2 :])
    assert one.remove(gone) == len(gone)
    assert begun == [pairs._learner]


def test_what_a_worker_wrote_before_it_died_is_judged(owner, two, drawn_records):
    pairs, one, _ = two
    last = drawn_records.take([len(drawn_records) - 1])
    one.remove(list(last.ids))
    one.store.upsert(last)  # and no more: it is killed
    assert one.count_unjudged() == 1
    owner.started(0)
    owner.ended(0, replaced=True)
    wait_until(lambda: pairs.count_unjudged() == 0)


def test_a_connection_that_fails_is_not_the_last_that_is_accepted(tmp_path, monkeypatch):
    """As where too many files are open for a moment."""
    accept, fails = SocketListener.accept, iter([OSError(errno.EMFILE, "Too many open files")])

    def fail_once(self: SocketListener) -> Any:
        for error in fails:
            raise error
        return accept(self)

    monkeypatch.setattr(SocketListener, "accept", fail_once)
    answering, line = Answering(str(tmp_path / "s"), {"add": int.__add__}), OwnerLine(str(tmp_path / "s"))
    with ThreadPoolExecutor(1) as caller:
        try:
            assert caller.submit(line.ask, "add", 1, 2).result(30) == 3
        finally:
            answering.close()
            line.close()


def test_limits_of_a_service_are_divided_and_those_of_a_request_are_not():
    share = share_of(ServeSettings(queue=9, max_connections=1, max_body_bytes=10, max_pending_bytes=20), 2)
    assert (share.queue, share.max_connections, share.max_body_bytes, share.max_pending_bytes) == (5, 1, 10, 10)


def test_auto_takes_one_worker_per_core_as_far_as_ram_allows(model, tmp_path, monkeypatch):
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    limit = tmp_path / "sys/fs/cgroup/cpu.max"
    limit.write_text("150000 100000")  # of a container
    assert cores(tmp_path) == min(2, cores(tmp_path / "nothing"))
    limit.write_text("max 100000")
    assert cores(tmp_path) == cores(tmp_path / "nothing") >= 1
    settings = load_settings(model=model)
    monkeypatch.setattr(together, "cores", lambda: 8)
    for free, expected in ((10**12, 8), (600_000_000, 2), (1, 1), (None, 8)):
        monkeypatch.setattr(together, "free_bytes", lambda free=free: free)
        assert how_many("auto", settings) == expected
    assert how_many("auto", settings.model_copy(update={"provider": "cuda"})) == 1
    assert how_many(3, settings) == 3
    monkeypatch.setattr("sys.platform", "darwin")  # where one process has all connections
    assert (how_many("auto", settings), how_many(3, settings)) == (1, 3)


@pytest.mark.parametrize("word", ["0", "many", "-1"])
def test_workers_are_a_number_or_auto(word):
    with pytest.raises(ConfigError, match="workers"):
        load_serve_settings(workers=word)
    assert load_serve_settings(workers="auto").workers == "auto"
    assert load_serve_settings(workers="3").workers == 3
