"""Commands that change a memory while `reco serve` has it open: a real service, and callers meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import Result

from reco_plugin.memory import open_memory
from reco_plugin.serve.note import read_note

pytestmark = pytest.mark.slow

Ask = Callable[..., Any]
Fail = Callable[..., str]
Run = Callable[..., Result]
PATIENCE_S = 60  # until a test is given up; nothing waits that long when all is well


@dataclass
class Service:
    """A `reco serve` in a process of its own."""

    process: subprocess.Popen[bytes]
    folder: Path
    url: str = ""

    def stop(self, how: int = signal.SIGTERM) -> None:
        self.process.send_signal(how)
        self.process.wait(PATIENCE_S)

    def wait_for(self, what: Callable[[], Any]) -> None:
        until = time.monotonic() + PATIENCE_S
        while not what():
            assert self.process.poll() is None, (self.folder / "serve.log").read_text()
            assert time.monotonic() < until, (self.folder / "serve.log").read_text()
            time.sleep(0.02)

    def is_ready(self) -> bool:
        note = read_note(self.folder / "memory")
        if note is None or note.process != self.process.pid:
            return False
        self.url = note.url
        return httpx.get(f"{self.url}/readyz").status_code == 200


@contextmanager
def serving(folder: Path, **variables: str) -> Iterator[Service]:
    with (folder / "serve.log").open("wb") as log:
        command = [sys.executable, "-m", "reco_plugin", "serve", "--memory", "./memory", "--port", "0"]
        process = subprocess.Popen(command, cwd=folder, env=os.environ | variables, stderr=log)
    service = Service(process, folder)
    try:
        service.wait_for(service.is_ready)
        yield service
    finally:
        process.terminate()  # so that it takes its socket away
        try:
            process.wait(PATIENCE_S)
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def service(memory: Path, work: Path) -> Iterator[Service]:
    """A service without any key, which has ./memory open, with the 24 pairs of the catalogue."""
    with serving(work) as running:
        yield running


@dataclass
class Callers:
    """Threads that ask a service all the time."""

    url: str
    answers: list[tuple[int, str | None, bool]] = field(default_factory=list)  # status, degraded, refined
    errors: list[Exception] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def ask(self) -> None:
        body = {"input": [{"text": "a small red circle"}], "input_type": "query"}
        with httpx.Client(base_url=self.url, timeout=PATIENCE_S) as client:
            while not self.ended.is_set():
                try:
                    answer = client.post("/v1/explain", json=body)
                except httpx.HTTPError as error:
                    self.errors.append(error)
                    return
                row = answer.json()["data"][0] if answer.is_success else {}
                self.answers.append((answer.status_code, answer.headers.get("x-reco-degraded"), bool(row.get("used"))))
                self.ended.wait(0.02)  # leave a core to what they are to disturb


@contextmanager
def callers(service: Service, threads: int = 3) -> Iterator[Callers]:
    """Who ask while the block runs; afterwards, every one of their requests was answered, and refined."""
    asking = Callers(service.url)
    running = [threading.Thread(target=asking.ask) for _ in range(threads)]
    for thread in running:
        thread.start()
    try:
        service.wait_for(lambda: len(asking.answers) > threads)
        yield asking
        seen = len(asking.answers)
        service.wait_for(lambda: len(asking.answers) > seen + 2 * threads or asking.errors)  # still answered now
    finally:
        asking.ended.set()
        for thread in running:
            thread.join(PATIENCE_S)
    assert asking.errors == []
    assert set(asking.answers) == {(200, None, True)}


@pytest.fixture
def lines(catalogue: Path) -> list[str]:
    """The catalogue's lines, with whole paths."""
    head, *rows = catalogue.read_text().splitlines()
    return [head, *(row.replace(",", f",{catalogue.parent}/", 1) for row in rows)]


@pytest.fixture
def write(work: Path) -> Callable[[list[str]], Path]:
    def write(rows: list[str]) -> Path:
        (work / "now.csv").write_text("\n".join(rows) + "\n")
        return work / "now.csv"

    return write


def held(folder: Path) -> dict[str, dict[str, Any]]:
    with closing(open_memory(folder, None, create=False)) as memory:
        return {id_: dict(payload) for id_, payload in memory.payloads()}


def versions(ask: Ask) -> dict[str, bool]:
    return {each["name"]: each["live"] for each in ask("memory", "versions")}


def test_all_that_changes_a_memory_works_while_it_is_served(
    service: Service, work: Path, lines: list[str], write: Any, ask: Ask
) -> None:
    with callers(service):
        table = write([*lines[:16], lines[16].replace("a ", "one ", 1), "new," + lines[17].split(",", 1)[1]])
        dry = ask("memory", "sync", table, "--dry-run")
        assert (dry["added"], dry["replaced"], dry["deleted"], dry["pairs"]) == (1, 16, 0, 24)
        told = ask("memory", "sync", table, "--max-replace", 1)
        assert (told["added"], told["replaced"], told["deleted"], told["pairs"]) == (1, 16, 0, 25)
        assert ask("memory", "sync", table)["unchanged"] == 17
        gone = ask("memory", "sync", write(lines[:11]), "--max-delete", 1)
        assert (gone["unchanged"], gone["deleted"], gone["pairs"]) == (10, 7, 18)
        assert ask("memory", "build", write(lines))["added"] == 6
        assert ask("memory", "add", write([lines[0], "more," + lines[1].split(",", 1)[1]]))["pairs"] == 25
        updated = ask(
            "memory",
            "add",
            write([lines[0], lines[1].replace("a ", "one ", 1), "no," + lines[2].split(",", 1)[1]]),
            "--only-known",
        )
        assert (updated["replaced"], updated["missing"]) == (1, 1)
        assert ask("memory", "remove", "more", lines[2].split(",")[0]) == {"removed": 2, "pairs": 23}
        assert ask("memory", "build", write(lines))["pairs"] == 24
        assert ask("memory", "copy", "memory", "all.parquet")["copied"] == 24
    assert (work / "memory" / "pictures.json").is_file()
    service.stop()
    assert not (work / "memory" / "service.json").exists()
    now = held(work / "memory")
    assert sorted(now) == sorted(line.split(",")[0] for line in lines[1:])
    assert {payload["reco_source"] for payload in now.values()} == {str(work / "now.csv")}
    assert ask("memory", "sync", write(lines))["unchanged"] == 24  # and as without a service


def test_no_request_is_lost_while_versions_come_and_go(
    service: Service, work: Path, lines: list[str], write: Any, ask: Ask
) -> None:
    with callers(service):
        built = ask("memory", "build", write(lines[:13]), "--swap", "--drop-others")  # makes a link of the folder
        assert (built["name"], built["live"], built["pairs"]) == ("memory--v2", True, 12)
        assert (work / "memory").resolve().name == "memory--v2"
        with httpx.Client(base_url=service.url) as client:
            assert client.get("/v1/models").json()["data"][0]["memory"]["pairs"] == 12
        built = ask("memory", "build", write(lines), "--swap")
        assert (built["name"], built["pairs"]) == ("memory--v3", 24)
        assert ask("memory", "versions", "--previous")["name"] == "memory--v2"
        assert ask("memory", "versions", "--use", "memory--v3")["live"] is True
        assert ask("memory", "sync", write(lines[:12]), "--max-delete", 1)["pairs"] == 11  # into the new version
        assert read_note(work / "memory--v2") is None
        assert ask("memory", "versions", "--prune")["deleted"] == ["memory--v1"]
    service.stop()
    assert len(held(work / "memory")) == 11


def test_no_pair_is_lost_that_is_added_until_the_swap(
    service: Service, work: Path, lines: list[str], write: Any, ask: Ask
) -> None:
    """Whether it comes before the build looks for other pairs, after that, or to the new version."""
    note = read_note(work / "memory")
    assert note is not None
    building = begin(work, "memory", "build", write(many(lines, 20)), "--swap", "--batch-size", 16)
    vector = [1.0] + [0.0] * 127
    stored = []
    with httpx.Client(base_url=note.url, headers={"api-key": note.token}, timeout=PATIENCE_S) as client:
        while building.poll() is None:
            pair = {"id": f"late {len(stored)}", "text_vector": vector, "image_vector": vector}
            answer = client.post("/v1/memory/pairs", json={"pairs": [pair]})
            assert answer.status_code == 200, answer.text
            stored.append(pair["id"])
            time.sleep(0.02)
    out, said = building.communicate()
    assert building.returncode == 0, said
    assert "memory--v2 holds" in out
    service.stop()
    now = held(work / "memory")
    assert len(stored) > 10
    assert {*stored} <= now.keys()
    assert len(now) == 24 + 480 + len(stored)


def test_reading_commands_work_while_it_is_served(
    service: Service, work: Path, catalogue: Path, ask: Ask, run: Run, fail: Fail
) -> None:
    while_served = ask("memory", "info"), ask("memory", "search", "circle red small", "--k", 3)
    another = fail("serve", "--port", 0)
    assert f"is open in the service at {service.url}, process {service.process.pid}, and such a folder" in another
    for reads in (
        ("eval", catalogue, "--memory", "memory"),
        ("embed", "--text", "a small red circle"),
    ):
        assert "work with a copy (reco memory copy" in (said := fail(*reads))
        assert service.url in said
    one = ask("memory", "feedback", "--not", "small-red-circle", "--text", "a blue circle")
    assert [each["id"] for each in ask("memory", "feedback")] == [one["id"]]
    assert ask("memory", "info")["opinions"] == 1
    copied = ask("memory", "copy", "memory", "elsewhere")
    assert (copied["pairs"], copied["opinions"]) == (24, 1)
    assert ask("memory", "copy", "memory", "backup.npz")["opinions"] == 1
    assert ask("memory", "feedback", "--withdraw", one["id"]) == {"withdrawn": 1}
    assert ask("eval", catalogue, "--memory", "elsewhere")["setup"]["pictures"] == "24"
    assert f"is open in the service at {service.url}" in fail("memory", "copy", "elsewhere", "memory")
    assert f"is open in the service at {service.url}" in fail("memory", "build", "--relearn")
    service.stop()
    (served, found), alone = while_served, ask("memory", "info")
    assert (served["kind"], alone["kind"]) == ("served", "edge")
    assert served["calibration"]
    for name in ("pairs", "encoder", "calibration"):
        assert served[name] == alone[name]
    again = ask("memory", "search", "circle red small", "--k", 3)  # by its words
    shown = [[(hit["id"], hit["similarity"], hit.get("words")) for hit in hits] for hits in (found, again)]
    assert shown[0] == shown[1]
    assert found[0]["words"] == "small red circle"
    assert found[0]["similarity"] == pytest.approx(1.0, abs=1e-5)


# --- interruptions


def begin(work: Path, *arguments: Any) -> subprocess.Popen[str]:
    """A command in a process of its own."""
    command = [sys.executable, "-m", "reco_plugin", *map(str, arguments)]
    return subprocess.Popen(command, cwd=work, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def many(lines: list[str], times: int) -> list[str]:
    return [lines[0], *(f"{number}-{line}" for number in range(times) for line in lines[1:])]


def pairs_of(service: Service) -> int:
    return int(httpx.get(f"{service.url}/v1/models").json()["data"][0]["memory"]["pairs"])


def test_a_killed_service_leaves_nothing_half_written(
    service: Service, work: Path, lines: list[str], write: Any, ask: Ask
) -> None:
    table = write(many(lines, 20))
    syncing = begin(work, "memory", "sync", table, "--batch-size", 8)
    service.wait_for(lambda: pairs_of(service) > 24 + 16)
    service.stop(signal.SIGKILL)
    _, said = syncing.communicate(timeout=PATIENCE_S)
    assert syncing.returncode == 1, said
    error = next(line for line in said.splitlines() if line.startswith("error: "))
    assert "What was written stays." in error
    assert (work / "memory" / "service.json").exists()  # which is no obstacle
    told = ask("memory", "sync", table)
    assert told["unchanged"] > 0
    assert (told["unchanged"] + told["added"], told["pairs"]) == (480, 504)


# --- who may


def test_only_the_user_who_serves_reads_the_note(memory: Path, work: Path, catalogue: Path, ask: Ask) -> None:
    with serving(work, RECO_SERVE_ADMIN_KEY="the-admin-key"):
        note = memory / "service.json"
        assert note.stat().st_mode & 0o777 == 0o600
        assert "the-admin-key" not in note.read_text()
        assert ask("memory", "sync", catalogue)["unchanged"] == 24  # without the key
    log = (work / "serve.log").read_text()
    assert "the-admin-key" not in log
    assert "this machine" in {json.loads(line).get("key") for line in log.splitlines()}


def test_a_copy_of_the_folder_is_not_what_is_served_and_callers_of_the_url_need_the_key(
    service: Service, work: Path, lines: list[str], ask: Ask
) -> None:
    shutil.copytree(work / "memory", work / "copy")
    assert ask("memory", "remove", lines[1].split(",")[0], "--memory", "copy")["pairs"] == 23
    assert pairs_of(service) == 24
    for method, path in (("POST", "/pairs"), ("DELETE", "/pairs"), ("POST", "/versions"), ("POST", "/feedback")):
        answer = httpx.request(method, f"{service.url}/v1/memory{path}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "right_missing")
