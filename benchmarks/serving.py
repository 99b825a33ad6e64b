"""Where the time of a refined embedding goes: in process, and on a Triton server by gRPC, HTTP and shared memory.

    python -m benchmarks.serving                                      the shipped model, as a table
    python -m benchmarks.serving --model triton_models my_model       other models too
    python -m benchmarks.serving --ways process --batches 32          one way only
    python -m benchmarks.serving --out docs/measurements/serving.md                writes the tables into the page

The server is that of the tests (``make install-triton``); where it is not installed, only "in process" is measured.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reco_plugin import Reco
from reco_plugin.artifact import Artifact, clip_graph, fusion_graph
from reco_plugin.files import whole_file
from reco_plugin.preprocess import Tokenizer, cut_to_longest, images_to_array
from reco_plugin.retrieve import Retrieval, retrieve
from reco_plugin.sessions import Session, open_graph
from reco_plugin.types import MODALITIES, Modality, Records, Vectors

from .machine import machine

ROOT = Path(__file__).resolve().parents[1]
BATCHES = (1, 8, 32)
PIXELS = (1200, 800)
WORDS = "a photo of a {} red bird that sits on a branch in snow"  # 16 of CLIP's tokens with start and end
STEPS = ("prepare", "encode", "retrieve", "fuse", "transport")
STAGES = ("queue", "compute_input", "compute_infer")
BEGIN, END = "<!-- measured: python -m benchmarks.serving -->", "<!-- end -->"
Times = dict[str, float]


@dataclass(frozen=True)
class Way:
    """Where the graphs run, and how inputs get there."""

    name: str
    scheme: str | None = None
    shared: str = "off"


WAYS = {
    "process": Way("in process"),
    "grpc": Way("Triton, gRPC", "grpc"),
    "http": Way("Triton, HTTP", "http"),
    "shared": Way("Triton, gRPC, shared memory", "grpc", "on"),
}


@dataclass(frozen=True)
class Plan:
    """What is measured, and how often.

    Attributes:
        ways: keys of :data:`WAYS`; the first is what the others are compared with.
        modalities: of the items.
        batches: items per call.
        rounds: how often everything is measured.
        calls: of batch 1 per round; larger batches get fewer, but three.
        pairs: in the memory.
    """

    ways: Sequence[str] = tuple(WAYS)
    modalities: Sequence[Modality] = MODALITIES
    batches: Sequence[int] = BATCHES
    rounds: int = 5
    calls: int = 20
    pairs: int = 10_000


class Subject:
    """One model, opened in one way; times its steps one by one, and the whole."""

    def __init__(self, reco: Reco, server: str | None = None) -> None:
        """Open its graphs.

        Args:
            reco: with a memory that is filled.
            server: HTTP address of Triton, whose own clock is read; None where graphs run in this process.
        """
        self.reco, self._server = reco, server
        self._artifact = Artifact.load(reco.settings.model)
        self._tokenizer = Tokenizer(self._artifact.tokenizer, self._artifact.manifest.text)
        self._graphs: dict[str, Session] = {}

    def once(self, modality: Modality, items: Sequence[Any]) -> Times:
        """Seconds of each of :data:`STEPS`, and of ``plain`` and ``refined``: what a caller waits for."""
        embed: Callable[..., Any] = self.reco.embed
        plain, _ = timed(lambda: embed(items, modality=modality, refine=False))
        refined, result = timed(lambda: embed(items, modality=modality, refine=True, gate=False))
        prepare, inputs = timed(lambda: self._inputs(modality, items))
        encode, sent, _ = self._run(clip_graph(modality), inputs)
        how = Retrieval(self.reco.settings.k or self._artifact.manifest.policy.k)
        seconds, found = timed(lambda: retrieve(self.reco.memory.store, result.frozen, modality, how, ids=False))
        inputs = {"query": result.frozen, "neighbours": found.vectors, "similarity": found.similarity}
        fuse, sent_again, _ = self._run(
            fusion_graph(modality, "paper"), inputs | {"trust": found.found.astype(np.float32)}
        )
        steps = (prepare, encode, seconds, fuse, sent + sent_again)
        return dict(zip(STEPS, steps, strict=True)) | {"plain": plain, "refined": refined}

    def _inputs(self, modality: Modality, items: Sequence[Any]) -> dict[str, Any]:
        manifest = self._artifact.manifest
        if modality == "image":
            return {"pixels": images_to_array(items, manifest.image)}
        return {"tokens": cut_to_longest(self._tokenizer(items).ids, manifest.text)}

    def _run(self, graph: str, inputs: Mapping[str, Any]) -> tuple[float, float, Any]:
        """Seconds in the graph, seconds on the way there and back, and the outputs."""
        if graph not in self._graphs:
            self._graphs[graph] = open_graph(self._artifact, graph, self.reco.settings)
        if self._server is None:
            seconds, outputs = timed(lambda: self._graphs[graph].run(inputs))
            return seconds, 0.0, outputs
        count, before = settled(self._server, graph)
        seconds, outputs = timed(lambda: self._graphs[graph].run(inputs))
        there = served(self._server, graph, beyond=count)[1] - before
        return there, seconds - there, outputs


def served(server: str, graph: str, beyond: int = -1) -> tuple[int, float]:
    """How many requests of a graph a Triton server has answered since it started, and seconds from arrival to output.

    The seconds end with the computing: the server takes its last time stamp after the answer has left, when its thread
    next runs, so that on a busy machine the whole can be longer than what the client waited.

    Args:
        server: its HTTP address.
        graph: name of the model.
        beyond: wait for more than this many: the answer is on its way before the server has counted it.
    """
    for _ in range(1000):
        with urllib.request.urlopen(f"{server}/v2/models/{graph}/versions/1/stats") as reply:
            found = json.load(reply)["model_stats"][0]["inference_stats"]
        count = int(found["success"].get("count", 0))
        if count > beyond:
            return count, sum(int(found[stage].get("ns", 0)) for stage in STAGES) / 1e9
        time.sleep(0.001)
    raise RuntimeError(f"{server} has not counted a request of {graph} that it answered")


def settled(server: str, graph: str) -> tuple[int, float]:
    """What :func:`served` says once it has stopped moving: earlier requests are counted only after their answers."""
    before = served(server, graph)
    for _ in range(1000):
        time.sleep(0.01)
        if (found := served(server, graph)) == before:
            return found
        before = found
    raise RuntimeError(f"{server} answers others, too: measure it alone")


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that an action takes, and what it returns."""
    started = time.perf_counter()
    result = action()
    return time.perf_counter() - started, result


def side_by_side(
    subjects: Mapping[str, Subject], modality: Modality, items: Sequence[Any], calls: int
) -> dict[str, Times]:
    """Medians of calls for which all ways take turns."""
    for subject in subjects.values():
        subject.once(modality, items)  # loads graphs, maps shared memory, wakes threads
    turns = [{way: subject.once(modality, items) for way, subject in subjects.items()} for _ in range(calls)]
    return {way: _each(statistics.median, [turn[way] for turn in turns]) for way in subjects}


def _each(summary: Callable[[list[float]], float], times: Sequence[Times]) -> Times:
    return {step: summary([one[step] for one in times]) for step in times[0]}


def row(name: str, times: Times, base: Times) -> str:
    """Cells of one way: milliseconds of the steps, and how much longer than plain, and than the base, it takes."""
    steps = [f"{1000 * times[step]:.2f}" for step in (*STEPS, "refined")]
    ratios = (times["refined"] / times["plain"], times["refined"] / base["refined"])
    return " | ".join([name, *steps, *(f"× {ratio:.2f}" for ratio in ratios)])


def samples(modality: Modality, batch: int) -> list[Any]:
    """JPEG photos of noise with large structures, or captions of 14 words."""
    if modality == "text":
        return [WORDS.format(("small", "large", "young", "old")[row % 4]) for row in range(batch)]
    rng, out = np.random.default_rng(0), io.BytesIO()
    coarse = Image.fromarray(rng.integers(0, 255, (16, 24, 3), dtype=np.uint8)).resize(PIXELS, Image.Resampling.BICUBIC)
    coarse.save(out, "JPEG", quality=90)
    return [out.getvalue()] * batch


def fill(reco: Reco, pairs: int) -> None:
    """Random pairs; what is found is no use, but finding it takes as long."""
    rng, dimension = np.random.default_rng(0), reco.manifest.dimension

    def side() -> Vectors:
        vectors = rng.standard_normal((pairs, dimension)).astype(np.float32)
        norms: Vectors = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / norms

    reco.memory.store.upsert(Records([str(number) for number in range(pairs)], side(), side(), [{}] * pairs))


@contextmanager
def opened(model: Path, ways: Sequence[str], pairs: int) -> Iterator[dict[str, Subject]]:
    """A model opened in several ways, with a server for those that need one and where it is installed."""
    with ExitStack() as stack:
        server: Any = None
        if any(WAYS[way].scheme for way in ways):
            server = stack.enter_context(triton(model))
        subjects = {}
        for way, chosen in ((way, WAYS[way]) for way in ways if server or not WAYS[way].scheme):
            there = {"triton_url": server.url(chosen.scheme), "triton_timeout_s": 120.0} if chosen.scheme else {}
            settings = there | {"triton_shared_memory": chosen.shared, "on_memory_failure": "fail"}
            reco = stack.enter_context(Reco.open(model, ":memory:", memory_kind="exact", **settings))
            fill(reco, pairs)
            subjects[way] = Subject(reco, server.http if chosen.scheme else None)
        yield subjects


@contextmanager
def triton(model: Path) -> Iterator[Any]:
    """The tests' server with a model folder; None, and a word about it, where it is not installed."""
    sys.path.append(str(ROOT / "tests" / "sessions" / "triton" / "support"))
    from triton_server import NoServerHere, TritonServer, Wheel

    with tempfile.TemporaryDirectory() as place:
        try:
            wheel = Wheel.find()
        except NoServerHere as reason:
            print(f"in process only: {reason}", file=sys.stderr)
            yield None
            return
        server = TritonServer(wheel, wheel.assemble(Path(place) / "backends"), [model], Path(place) / "log")
        try:
            yield server.start()
        finally:
            server.stop()


def table(model: Path, plan: Plan) -> str:
    """Measure one model: of several rounds, the least median of each step, since whatever else runs only adds."""
    items = {(modality, batch): samples(modality, batch) for modality in plan.modalities for batch in plan.batches}
    with opened(model.resolve(), plan.ways, plan.pairs) as subjects:
        rounds = [
            {
                (modality, batch): side_by_side(subjects, modality, some, max(3, plan.calls // batch))
                for (modality, batch), some in items.items()
            }
            for _ in range(plan.rounds)
        ]
    head = ["batch", "graphs run", *STEPS, "refined", "÷ plain", "÷ in process"]
    lines = ["| " + " | ".join(head) + " |", "|---|---" + "|--:" * (len(head) - 2) + "|"]
    for modality, batch in items:
        least = {way: _each(min, [one[modality, batch][way] for one in rounds]) for way in subjects}
        base = least[next(iter(subjects))]
        name = f"{batch} {modality}{'s' if batch > 1 else ''}"
        lines += [f"| {name} | {row(WAYS[way].name, times, base)} |" for way, times in least.items()]
    return "\n".join(lines)


def write(page: Path, measured: str) -> None:
    """Put what was measured between the page's two marks; its words stay.

    Raises:
        SystemExit: the page has no such marks.
    """
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{page} has no lines {BEGIN} and {END} to write between")
    with whole_file(page) as part:
        part.write_text(f"{before}{BEGIN}\n\n{measured}\n\n{END}{after}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one table per model, or write them into a page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, nargs="+", default=[Path("triton_models")], help="model folders")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=Plan.ways, help="the first is the base")
    parser.add_argument("--modalities", nargs="+", choices=list(MODALITIES), default=Plan.modalities)
    parser.add_argument("--batches", type=int, nargs="+", default=Plan.batches)
    parser.add_argument("--rounds", type=int, default=Plan.rounds, help="the least median of them counts")
    parser.add_argument("--calls", type=int, default=Plan.calls, help="of batch 1, per round; of others fewer, but 3")
    parser.add_argument("--pairs", type=int, default=Plan.pairs, help="in the memory")
    parser.add_argument("--out", type=Path, help="page to write into")
    told = parser.parse_args(arguments)
    plan = Plan(told.ways, told.modalities, told.batches, told.rounds, told.calls, told.pairs)
    measured = [machine("onnxruntime")]
    for model in told.model:
        measured += [f"`{model}`, milliseconds per call:", table(model, plan)]
    text = "\n\n".join(measured)
    print(text) if told.out is None else write(told.out, text)


if __name__ == "__main__":
    main()
