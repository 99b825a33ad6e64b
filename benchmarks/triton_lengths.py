"""To how many lengths should texts be cut on a Triton server? Few merge better, many pad less.

One server runs the text tower of ViT-B/32, of random weights. So many callers send one text each, as long as captions
are, cut to some set of lengths; the sets take turns, and every answer is compared with that of the uncut text. It is
the server of the tests, whose graphs run in a Python backend: Triton itself merges requests, of equal length only.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from statistics import median

import httpx
import numpy as np

from reco_plugin.artifact import Artifact, clip_graph
from reco_plugin.config import load_settings
from reco_plugin.preprocess import cut_to_longest
from reco_plugin.preprocess.text import BUCKETS, TextConfig, TokenIds
from reco_plugin.sessions.triton.session import TritonSession, open_triton
from reco_plugin.types import Vectors

from .page import machine, page_file, table, tell
from .peers.servers import triton_of_the_tests
from .processes import seconds_of
from .speed.inputs import vit

LENGTHS: dict[str, tuple[int, ...]] = {
    "each its own": tuple(range(1, 78)),
    "4, 8, 12 …": tuple(range(4, 78, 4)),
    "8, 16, 24 …": tuple(range(8, 78, 8)),
    ", ".join(map(str, BUCKETS)): BUCKETS,
    "77": (77,),
}
TEXTS, MEDIAN, SPREAD = 256, 11.0, 0.45
"""Texts; the median and the deviation of the logarithm of their tokens, with the two that frame a text."""
_SAME = 1e-4


@dataclass(frozen=True)
class Round:
    """What one set of lengths did in one round."""

    cpu: float  # seconds of the server for a text
    merged: float  # texts in one execution


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    words = argparse.ArgumentParser(prog="python -m benchmarks.triton_lengths", description=__doc__)
    words.add_argument("--callers", type=int, nargs="+", default=[1, 16, 64])
    words.add_argument("--seconds", type=float, default=4.0, help="of each set of lengths in a round")
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--folder", type=Path, default=Path(".cache", "speed"), help="keeps the model")
    words.add_argument("--page", type=page_file, help="such as docs/measurements/serving.md")
    given = words.parse_args(arguments)
    given.folder.mkdir(parents=True, exist_ok=True)
    found = measure(given.folder.resolve(), given.callers, given.seconds, given.rounds)
    command = " ".join(["python -m benchmarks.triton_lengths", *(sys.argv[1:] if arguments is None else arguments)])
    tell(given.page, {"lengths": f"{block(found)}\n\n`{command}`: {machine('onnxruntime')}."})


def measure(folder: Path, callers: Sequence[int], seconds: float, rounds: int) -> dict[int, dict[str, list[Round]]]:
    """By the number of callers and the name of the set of lengths, what was seen in each round."""
    artifact = Artifact.load(vit(folder, "fp32"))
    config, ids = artifact.manifest.text, texts(artifact.manifest.text)
    found: dict[int, dict[str, list[Round]]] = {}
    with server(artifact.folder) as (session, url, pid):
        right = np.concatenate([session.run({"tokens": ids[at : at + 32]})["features"] for at in range(0, TEXTS, 32)])
        cut = {name: _cut(ids, replace(config, buckets=lengths)) for name, lengths in LENGTHS.items()}
        for one in {part.shape[1]: part for parts in cut.values() for part in parts}.values():
            session.run({"tokens": one})  # each shape once, before anything is timed
        for number in range(rounds):
            for many in callers:
                for name in list(cut)[:: 1 if number % 2 == 0 else -1]:
                    seen = _round(session, url, pid, cut[name], right, many, seconds)
                    found.setdefault(many, {}).setdefault(name, []).append(seen)
    return found


def block(found: Mapping[int, Mapping[str, Sequence[Round]]]) -> str:
    """A row for each set of lengths: processor time, since the clock of a shared machine wanders, and texts merged."""
    asks = (f"{many} caller{'s' if many > 1 else ''}" for many in found)
    head = ["cut to", *(f"{who}: {what}" for who in asks for what in ("CPU ms a text", "merged"))]
    rows = []
    for name in LENGTHS:
        cells = []
        for ways in found.values():
            cpu, merged = (median(getattr(one, what) for one in ways[name]) for what in ("cpu", "merged"))
            cells += [f"{1000 * cpu:.1f}", f"{merged:.1f}"]
        rows.append([name, *cells])
    return table(head, rows)


def texts(config: TextConfig) -> TokenIds:
    """Token ids (N, L) of texts whose lengths are distributed as those of captions.

    >>> ids = texts(TextConfig("clip", 77, "lower", pad_id=0, end_id=49407, dynamic=True))
    >>> np.quantile((ids != 0).sum(axis=1), (0, 0.1, 0.5, 0.9, 1)).tolist()
    [4.0, 6.0, 11.0, 20.0, 44.0]
    """
    rng, length = np.random.default_rng(0), config.context_length
    ids = np.full((TEXTS, length), config.pad_id, np.int32)
    for row, tokens in zip(ids, np.exp(rng.normal(np.log(MEDIAN), SPREAD, TEXTS)).round(), strict=True):
        last = int(np.clip(tokens, 4, length)) - 1
        row[: last + 1] = [49406, *rng.integers(300, 40_000, last - 1), config.end_id]
    return ids


@contextmanager
def server(model: Path) -> Iterator[tuple[TritonSession, str, int]]:
    """The text tower on a server, its address by HTTP, and its process."""
    artifact, graph = Artifact.load(model), clip_graph("text")
    with (
        tempfile.TemporaryDirectory() as folder,
        triton_of_the_tests([model], Path(folder), threads=2, models=[graph]) as running,
    ):
        assert running.process is not None
        yield (
            open_triton(artifact, graph, load_settings(triton_url=running.grpc, triton_timeout_s=60)),
            running.http,
            running.process.pid,
        )


def _cut(ids: TokenIds, config: TextConfig) -> list[TokenIds]:
    return [cut_to_longest(row[None], config) for row in ids]


def _round(
    session: TritonSession, url: str, pid: int, cut: Sequence[TokenIds], right: Vectors, callers: int, seconds: float
) -> Round:
    before, worked = _statistics(url), seconds_of(pid)
    answers = _ask(session, cut, callers, seconds)
    worked, after = seconds_of(pid) - worked, _statistics(url)
    for place, vector in answers:
        cosine = float(vector @ right[place] / np.linalg.norm(vector) / np.linalg.norm(right[place]))
        if not cosine > 1 - _SAME:
            raise SystemExit(f"text {place} cut to {cut[place].shape[1]}: cosine {cosine:.6f} to that of the whole one")
    executed = after["execution_count"] - before["execution_count"]
    return Round(worked / len(answers), len(answers) / executed)


def _ask(session: TritonSession, cut: Sequence[TokenIds], callers: int, seconds: float) -> list[tuple[int, Vectors]]:
    """Answers by the places of texts; so many callers ask, each the next when it has its answer, for that long."""
    until, places = time.perf_counter() + seconds, count()
    answers = list[tuple[int, Vectors]]()

    def ask() -> None:
        while time.perf_counter() < until:
            place = next(places) % len(cut)
            answers.append((place, session.run({"tokens": cut[place]})["features"][0]))

    with ThreadPoolExecutor(callers) as pool:
        for one in [pool.submit(ask) for _ in range(callers)]:
            one.result()
    return answers


def _statistics(url: str) -> dict[str, int]:
    """Counts of the text tower since the server began."""
    told = httpx.get(f"{url}/v2/models/{clip_graph('text')}/stats").raise_for_status().json()["model_stats"]
    return {name: int(value) for name, value in told[0].items() if name.endswith("_count")}


if __name__ == "__main__":
    main()
