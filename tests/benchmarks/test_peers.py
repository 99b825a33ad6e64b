"""benchmarks.peers: what services are asked, how their answers are judged, and what is written of it."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.peers import environment
from benchmarks.peers.__main__ import KINDS, PAGE, _keep, cases, measure, parsed
from benchmarks.peers.callers import Job, Seen, ask
from benchmarks.peers.checkpoint import Made, photo, texts
from benchmarks.peers.dialects import PATHS, Dialect, request, vectors
from benchmarks.peers.report import Case, Cell, check, told
from benchmarks.peers.servers import Running

ROOT = Path(__file__).resolve().parents[2]
ENDS: Any = b"\r\n\r\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The inputs of the benchmark with right answers at random."""
    folder, rng = tmp_path_factory.mktemp("peers"), np.random.default_rng(0)
    known = {text: 3 + rng.normal(size=8) for text in texts()}  # a text that is there twice has one answer
    right = np.array([known[text] for text in texts()])
    np.save(folder / "text.npy", (right / np.linalg.norm(right, axis=1, keepdims=True)).astype(np.float32))
    return Made(folder)


def answer(rows: np.ndarray) -> bytes:
    """What a service writes as OpenAI's does."""
    data = [{"index": place, "embedding": row.tolist()} for place, row in enumerate(rows)]
    body = json.dumps({"data": data[::-1]}).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def asked(made: Made, respond: Callable[[list[str]], bytes], callers: int = 3, items: int = 2) -> Seen:
    """Callers ask a server of this process for a moment."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(ENDS):
                (length,) = [int(line.split()[1]) for line in head.splitlines() if line.startswith(b"content-length")]
                writer.write(respond(json.loads(await reader.readexactly(length))["input"]))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def run() -> Seen:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        found = await ask(Job(str(made.folder), port, "plain", "text", items, callers, 0.05))
        server.close()
        return found

    return asyncio.run(run())


def test_right_answers_are_right_and_each_is_counted(made):
    place = {text: row for row, text in enumerate(texts())}
    seen = asked(made, lambda input: answer(made.answers("text")[[place[text] for text in input]]))
    assert seen.requests >= 3 and seen.failures == [] and seen.mistaken == 0
    assert seen.cosine > 0.99999 and seen.apart > 0.999 and 0 < seen.p50 <= seen.p99 <= seen.seconds


def test_another_items_answer_is_noticed(made):
    place = {text: row for row, text in enumerate(texts())}
    turned = np.roll(made.answers("text"), 1, axis=0)
    seen = asked(made, lambda input: answer(turned[[place[text] for text in input]]), callers=1)
    assert seen.mistaken >= 2 * seen.requests - 1 and seen.apart < 0.9


@pytest.mark.parametrize(
    ("respond", "words"),
    [
        (lambda _: b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n", "429 Too Many"),
        (lambda _: answer(np.ones((1, 8), np.float32)), r"\(1, 8\) instead of \(2, 8\)"),
    ],
)
def test_a_refusal_and_a_missing_vector_are_failures(made, respond, words):
    seen = asked(made, respond, callers=1)
    with pytest.raises(AssertionError, match=words):
        assert not seen.failures, seen.failures[0]


@pytest.mark.parametrize("dialect", PATHS)
def test_a_request_is_http_that_says_its_length(dialect: Dialect) -> None:
    for modality, items in (("text", ["ä b", "c"]), ("image", [b"\xff\xd8", b"\xff"])):
        head, _, body = request(dialect, items, modality).partition(ENDS)
        lines = head.decode().split("\r\n")
        assert lines[0] == f"POST {PATHS[dialect]} HTTP/1.1" and f"content-length: {len(body)}" in lines
        if dialect != "kserve":
            told = json.loads(body)
            assert len(told["input"]) == 2 and ("modality" in told) is (dialect == "infinity")
            assert all(one.startswith("data:image/jpeg;base64,") for one in told["input"]) is (modality == "image")
            continue
        length = int(next(line.split()[1] for line in lines if line.startswith("inference-header")))
        (size,) = [one["parameters"]["binary_data_size"] for one in json.loads(body[:length])["inputs"]]
        raw = items[0].encode() if isinstance(items[0], str) else items[0]
        assert len(body) == length + size and body[length:].startswith(struct.pack("<I", len(raw)) + raw)


def test_vectors_are_read_from_tritons_answers():
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    outputs = [{"name": "embedding", "datatype": "FP32", "shape": [2, 3], "parameters": {"binary_data_size": 24}}]
    told = json.dumps({"outputs": outputs}).encode()
    head = f"HTTP/1.1 200 OK\r\nInference-Header-Content-Length: {len(told)}\r\n".encode()
    assert vectors("kserve", head, told + rows.tobytes()).tolist() == rows.tolist()


def seen(requests: int, cosine: float = 1.0, failures: list[str] | None = None) -> Seen:
    return Seen(requests, 2.0, 0.1, 0.2, cosine, 1.0, 0, 0.01, failures or [])


def test_services_take_turns_and_the_best_round_counts(tmp_path):
    case, order, left = Case("text", 32, 4), list[str](), {"infinity": [10, 8], "ours, int8": [20, 30]}

    def turn(one: Running, _: Case) -> Seen:
        order.append(one.name)
        return seen(left[one.name].pop(0))

    running = [Running("infinity", "infinity", 1, 0), Running("ours, int8", "ours", 2, 0)]
    cells = measure(running, case, 2, turn)
    assert order == ["infinity", "ours, int8", "ours, int8", "infinity"]
    assert [cell.rate for cell in cells] == [160, 480]
    assert "| 4 | ours, int8 | 480.0 | 3.00 | 100 | 200 | 0.0 | – |" in told(cells)
    assert "Least of ours ÷ infinity: int8 3.00." in told(cells)
    for _ in range(2):  # twice the same cases: kept once
        _keep(tmp_path / "peers.json", cells)
    assert [one["items_per_second"] for one in json.loads((tmp_path / "peers.json").read_text())] == [160, 480]


def test_what_is_wrong_is_told():
    case = Case("image", 1, 1)
    cells = [Cell.of("ours, int8", case, [(seen(1, cosine), 1.0)], 0) for cosine in (0.99, 0.97)]
    cells += [Cell.of("ours, fp32", case, [(seen(1, 0.99), 1.0)], 0), Cell.of("Triton", case, [], 0)]
    cells += [Cell.of("infinity", case, [(seen(1, 1.0, ["500 Oh"]), 1.0)], 0)]
    assert [line.split(": ", 1)[1] for line in check(cells)] == [
        "ours, int8: a cosine of 0.97000, below 0.98",
        "ours, fp32: a cosine of 0.99000, below 0.999",
        "Triton: 1 failed, the first: no answer",
        "infinity: 1 failed, the first: 500 Oh",
    ]


def test_the_page_has_a_place_for_each_table_and_a_quick_round_is_short():
    page = (ROOT / "docs" / "measurements" / PAGE).read_text(encoding="utf-8")
    assert all(f"<!-- measured: {kind} -->" in page for kind in KINDS)
    quick = parsed(["--quick"])
    assert quick.rounds == 1 and [one.callers for kind in KINDS for one in cases(quick, kind)] == [1, 16, 1, 1, 16, 1]
    with pytest.raises(SystemExit):
        parsed(["nothing"])


def test_inputs_are_the_same_every_time_and_unlike_each_other():
    assert photo(3) == photo(3) != photo(4)
    assert texts() == texts()


def test_an_environment_of_this_lock_is_not_made_again(tmp_path):
    (tmp_path / "made-from.txt").write_text(environment.LOCK.read_text(encoding="utf-8"), encoding="utf-8")
    assert environment.make(tmp_path) == tmp_path / "bin" / "python"
