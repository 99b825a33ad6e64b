"""Callers, in a process of their own: ``python -m benchmarks.peers.callers`` reads a job and writes what became of it.

Each asks the next as soon as it has its answer, until the time is over; then all wait for what they asked. The answers
are compared with the right ones afterwards, so that it takes no time from the service.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from reco_plugin.types import Modality, Vectors

from ..callers import END, Asked, call
from .checkpoint import Made
from .dialects import Dialect, request, vectors

_PATIENCE_S = 120.0
"""The longest that an answer may take."""


@dataclass(frozen=True)
class Job:
    """What is asked."""

    folder: str  # of the inputs and the right answers
    port: int
    dialect: Dialect
    modality: Modality
    items: int  # of a request
    callers: int
    seconds: float


@dataclass
class Seen:
    """What became of it."""

    requests: int  # answered
    seconds: float  # from the first request to the last answer
    p50: float  # seconds
    p99: float
    cosine: float  # least, of all answers to the right ones
    apart: float  # least of the same after what all right answers have in common is taken off
    mistaken: int  # answers that are nearer to another item's right answer
    callers_cpu: float  # seconds of this process meanwhile
    failures: list[str] = field(default_factory=list)


def rows_of(count: int, items: int) -> list[np.ndarray]:
    """Which inputs each request holds: windows that begin everywhere, so that no two requests are alike.

    >>> [rows.tolist() for rows in rows_of(3, 2)]
    [[0, 1], [1, 2], [2, 0]]
    """
    return [(np.arange(items) + start) % count for start in range(count)]


async def ask(job: Job) -> Seen:
    """Ask for so long, then compare."""
    made = Made(Path(job.folder))
    inputs, right = made.inputs(job.modality), made.answers(job.modality)
    rows = rows_of(len(inputs), job.items)
    requests = [request(job.dialect, [inputs[row] for row in some], job.modality) for some in rows]
    begun, worked = time.perf_counter(), time.process_time()
    asked = Asked(requests, begun + job.seconds)
    await call(asked, job.port, job.callers, job.seconds + _PATIENCE_S)
    took, worked = time.perf_counter() - begun, time.process_time() - worked
    return judged(job, asked, [right[some] for some in rows], right, (took, worked), asked.failures)


def judged(
    job: Job, asked: Asked, expected: list[Vectors], right: Vectors, times: tuple[float, float], failures: list[str]
) -> Seen:
    """Compare every answer with the right one.

    Args:
        job: what was asked.
        asked: what was answered.
        expected: (B, D) of each request.
        right: (N, D) of all inputs.
        times: seconds in all, and of this process's processor time.
        failures: what was not answered.
    """
    took, worked = times
    if not asked.answers:
        return Seen(0, took, np.nan, np.nan, np.nan, np.nan, 0, worked, failures)
    middle, cosine, apart, mistaken = right.mean(axis=0), 1.0, 1.0, 0
    others = _unit(right - middle)
    for place, _, raw in asked.answers:
        head, _, body = raw.partition(END)
        found, wanted = _unit(vectors(job.dialect, head, body)), expected[place]
        if found.shape != wanted.shape:
            failures.append(f"{found.shape} instead of {wanted.shape}")
            continue
        cosine = min(cosine, float(np.einsum("bd,bd->b", found, wanted).min()))
        near = _unit(found - middle)
        own = np.einsum("bd,bd->b", near, _unit(wanted - middle))
        apart = min(apart, float(own.min()))
        mistaken += int((own < (near @ others.T).max(axis=1) - 1e-5).sum())
    p50, p99 = np.percentile([seconds for _, seconds, _ in asked.answers], [50, 99])
    return Seen(len(asked.answers), took, float(p50), float(p99), cosine, apart, mistaken, worked, failures)


def _unit(rows: Vectors) -> Vectors:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


if __name__ == "__main__":
    json.dump(asdict(asyncio.run(ask(Job(**json.load(sys.stdin))))), sys.stdout)
