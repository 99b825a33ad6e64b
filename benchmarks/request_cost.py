"""CPU of single steps of a request: ``python -m benchmarks.request_cost [STEP …]``, each beside what it replaced.

What is compared takes turns in one process, so that the ratios hold on a machine that does other work, too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import count, repeat
from pathlib import Path

import numpy as np
import onnxruntime
from pydantic_core import to_json

from reco_plugin import Reco
from reco_plugin.artifact import Artifact, clip_graph
from reco_plugin.demo.tasks import pairs
from reco_plugin.preparation import Preparation
from reco_plugin.quickstart.dataset import ALL_SPLITS, load
from reco_plugin.serve.dialects.openai import Embedding
from reco_plugin.serve.pool import as_written
from reco_plugin.serve.wire import write_json

from .load.service import Service, started
from .page import machine, table
from .speed.turns import Turns, take_turns
from .stand_in import server

SEARCH_S = 0.004  # that a request waits for a Qdrant server
PAIRS, ASKED = 200, 256
CALLERS = (1, 16, 64)


def spinning(model: Path, rounds: int) -> str:
    """A text tower between searches on a server: its threads spin on after a run, or stop with it."""
    artifact = Artifact.load(model)
    ids = Preparation(artifact, 1).tokenizer(["a photo of a red fox"]).ids[:, :16].astype(np.int32)
    rows = []
    for batch in (1, 8):
        tokens = {"tokens": np.repeat(ids, batch, 0)}
        for name, search_s in (("", 0.0), (", then a search", SEARCH_S)):
            actions: dict[str, Callable[[], object]] = {}
            for stop in "01":
                options = onnxruntime.SessionOptions()
                options.add_session_config_entry("session.force_spinning_stop", stop)
                session = onnxruntime.InferenceSession(str(artifact.graph(clip_graph("text"))), options)
                actions[stop] = partial(_run_and_wait, session, tokens, search_s)
            rows.append(_cells(take_turns(actions, rounds, calls=40), f"text × {batch}{name}", "1", "0"))
    return table(["", "spin on: CPU, ms", "stop: CPU, ms", "CPU, stop ÷ on", "time, stop ÷ on"], rows)


def _run_and_wait(session: onnxruntime.InferenceSession, inputs: Mapping[str, object], seconds: float) -> None:
    session.run(None, inputs)
    if seconds:
        time.sleep(seconds)


def searching(model: Path, rounds: int) -> str:
    """Refined beside plain texts with the memory on a server (the tests' stand-in): CPU of the asking process."""
    data = load()
    stored, number = pairs(data, ALL_SPLITS)[:PAIRS], count()
    with server("grpc") as url, Reco.open(model, memory=url) as reco:
        reco.memory.add(stored)
        with Reco.open(model, memory=url, batch_callers=False) as alone:
            actions: dict[str, Callable[[], object]] = {}
            for callers in (1, 16, 64):
                threads = ThreadPoolExecutor(callers)
                for name, each, refine in (("plain", reco, False), ("refined", reco, True), ("alone", alone, True)):

                    def ask(_: int, each: Reco = each, refine: bool = refine) -> None:
                        each.embed_texts([f"a red fox {next(number)}"], refine=refine)

                    def ask_all(threads: ThreadPoolExecutor = threads, ask: Callable[[int], None] = ask) -> None:
                        list(threads.map(ask, range(ASKED)))

                    actions[f"{name}, {callers}"] = ask_all
            turns = take_turns(actions, rounds)
    rows = []
    for callers in (1, 16, 64):
        plain, refined, single = (
            1000 * turns.least_cpu(f"{name}, {callers}") / ASKED for name in ("plain", "refined", "alone")
        )
        rows.append([f"{callers}", *(f"{value:.2f}" for value in (plain, single, refined, refined / plain))])
    return table(["callers", "plain, ms", "refined, each call alone, ms", "refined, ms", "refined ÷ plain"], rows)


def http(model: Path, rounds: int, beside: Sequence[Path] = ()) -> str:
    """One text whose vector is in the cache: what HTTP, JSON and the way between take of the service's CPU."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as open_:
        memories = [Path(folder, f"memory-{number}") for number in range(1 + len(beside))]
        for memory in memories:
            memory.mkdir()
        services = _checkouts(open_, model, memories, beside, "--cache-entries", "100")
        cpu = _cpu_of_requests(services, rounds, {"plain": repeat("a red fox")})
    rows = [[name, f"{callers}", f"{taken:.2f}"] for (name, _, callers), taken in cpu.items()]
    return table(["checkout", "callers", "CPU of the service a request, ms"], rows, left=2)


def served(model: Path, rounds: int, beside: Sequence[Path] = ()) -> str:
    """One new text over HTTP, plain and refined, with the memory on a server (the tests' stand-in)."""
    texts = (f"a red fox {number}" for number in count())
    with server("grpc") as url, ExitStack() as open_:
        with Reco.open(model, memory=url) as reco:
            reco.memory.add(pairs(load(), ALL_SPLITS)[:PAIRS])
        services = _checkouts(open_, model, [url] * (1 + len(beside)), beside)
        cpu = _cpu_of_requests(services, rounds, {"plain": texts, "refined": texts})
    rows = []
    for name in services:
        for callers in CALLERS:
            plain, refined = cpu[name, "plain", callers], cpu[name, "refined", callers]
            rows.append([name, f"{callers}", f"{plain:.2f}", f"{refined:.2f}", f"{refined / plain:.2f}"])
    return table(["checkout", "callers", "plain: CPU, ms", "refined: CPU, ms", "refined ÷ plain"], rows, left=2)


def _checkouts(
    open_: ExitStack, model: Path, memories: Sequence[Path | str], beside: Sequence[Path], *flags: str
) -> dict[str, Service]:
    """A service of this checkout, and one of each other."""
    folder = Path(open_.enter_context(tempfile.TemporaryDirectory()))
    words = (*flags, "--no-page", "--log-level", "warning")
    return {
        str(root): open_.enter_context(started(model.resolve(), memory, folder / f"{place}.log", words, root=root))
        for place, (root, memory) in enumerate(zip((Path.cwd(), *beside), memories, strict=True))
    }


def _cpu_of_requests(
    services: Mapping[str, Service], rounds: int, asked: Mapping[str, Iterator[str]]
) -> dict[tuple[str, str, int], float]:
    """Milliseconds of a request by service, by the prefix of its path, and by callers: the least of the rounds."""
    cpu: dict[tuple[str, str, int], list[float]] = {}
    for number in range(rounds):
        for name in list(services)[:: 1 if number % 2 == 0 else -1]:
            url, pid = services[name].url, services[name].pid
            for prefix, texts in asked.items():
                for callers in CALLERS:
                    ask_service(url, callers, callers, prefix, texts)
                    before = processor_s(pid)
                    ask_service(url, callers, ASKED, prefix, texts)
                    taken = 1000 * (processor_s(pid) - before) / ASKED
                    cpu.setdefault((name, prefix, callers), []).append(taken)
    return {key: min(taken) for key, taken in cpu.items()}


def ask_service(url: str, callers: int, requests: int, prefix: str, texts: Iterator[str]) -> None:
    """So many requests by so many kept connections, one after the other on each."""
    host, port = url.removeprefix("http://").split(":")
    head = f"POST /{prefix}/v1/embeddings HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"

    async def call(times: int) -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        for _ in range(times):
            body = json.dumps({"input": [next(texts)]}).encode()
            writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
            if not answer.startswith(b"HTTP/1.1 200"):
                raise SystemExit(answer.decode())
        writer.close()

    async def call_all() -> None:
        await asyncio.gather(*(call(requests // callers) for _ in range(callers)))

    asyncio.run(call_all())


def processor_s(pid: int) -> float:
    """Seconds that processors worked for a process."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _cells(turns: Turns, name: str, new: str, old: str) -> list[str]:
    cpu = [1000 * turns.least_cpu(each) for each in (old, new)]
    ratios = [cpu[1] / cpu[0], turns.least(new) / turns.least(old)]
    return [name, *(f"{value:.2f}" for value in (*cpu, *ratios))]


def answers(model: Path, rounds: int) -> str:
    """What 32 vectors of 512 dimensions take as an answer of /v1/embeddings: from lists of floats, and as now."""
    vectors = np.random.default_rng(0).standard_normal((32, 512)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    def from_lists() -> bytes:
        items = (Embedding(index=place, embedding=vector.tolist()) for place, vector in enumerate(vectors))
        return b",".join(to_json(item, exclude_none=True) for item in items)

    def from_arrays() -> bytes:
        made = (
            Embedding.model_construct(index=place, embedding=as_written(vector)) for place, vector in enumerate(vectors)
        )
        return b",".join(map(write_json, made))

    turns = take_turns({"lists": from_lists, "arrays": from_arrays}, rounds, calls=5)
    sizes = {"lists": len(from_lists()), "arrays": len(from_arrays())}
    rows = [[name, f"{1000 * turns.least_cpu(name) / 32:.3f}", f"{size / 32:,.0f}"] for name, size in sizes.items()]
    return table(["from", "CPU a vector, ms", "bytes a vector"], rows)


STEPS: dict[str, Callable[[Path, int], str]] = {
    "spinning": spinning,
    "searching": searching,
    "http": http,
    "served": served,
    "answers": answers,
}


def main() -> None:
    """Print a table for each step."""
    words = argparse.ArgumentParser(prog="python -m benchmarks.request_cost", description=__doc__)
    words.add_argument("steps", nargs="*", default=list(STEPS), help=f"some of: {', '.join(STEPS)}")
    words.add_argument("--model", type=Path, default=Path("triton_models"))
    words.add_argument("--rounds", type=int, default=7)
    words.add_argument(
        "--beside", type=Path, nargs="*", default=[], help="other checkouts, which take turns: of http and served"
    )
    told = words.parse_args()
    steps: dict[str, Callable[[Path, int], str]] = STEPS | {
        step.__name__: partial(step, beside=told.beside) for step in (http, served)
    }
    for name in told.steps:
        print(f"## {name}\n\n{steps[name](told.model, told.rounds)}\n", flush=True)
    print(machine("onnxruntime"))


if __name__ == "__main__":
    main()
