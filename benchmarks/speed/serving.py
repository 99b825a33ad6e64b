"""This service beside the one of another commit, with 1, 16 and 64 callers that keep their connections."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np

from reco_plugin.encoders.model_folder import Artifact

from ..page import table
from ..processes import ask, free_port, running
from .callers import cpu_seconds, post, rate
from .inputs import Given

CALLERS, SECONDS, TEXTS, PAIRS = (1, 16, 64), 2.0, 50, 2000
HERE = Path(__file__).resolve().parents[2]


def serve(given: Given) -> str:
    """Answers a second and CPU time of a request, for both services: medians of rounds in which they take turns."""
    assert given.old is not None
    rows = []
    with _served(given.old, given, "old") as old, _served(HERE, given, "new") as new:
        for refined in (False, True):
            for callers in CALLERS:
                rounds = [
                    (_measure(*old, callers, refined), _measure(*new, callers, refined)) for _ in range(given.rounds)
                ]
                rates, cpu = ([[pair[side][what] for pair in rounds] for side in (0, 1)] for what in (0, 1))
                cells = [*(f"{median(one):.0f}" for one in rates), *(f"{1000 * median(one):.2f}" for one in cpu)]
                ratio = median(mine / other for other, mine in zip(*rates, strict=True))
                rows.append([f"{'refined' if refined else 'plain'} × {callers}", *cells, f"{ratio:.2f}"])
    head = ["callers", "old, a second", "new, a second", "old, ms of CPU", "new, ms of CPU", "rate, new ÷ old"]
    commit = subprocess.check_output(["git", "-C", given.old, "rev-parse", "--short", "HEAD"], text=True).strip()
    return f"Old is commit `{commit}`.\n\n{table(head, rows)}"


@contextmanager
def _served(tree: Path, given: Given, name: str) -> Iterator[tuple[int, int]]:
    """Run the service of a work tree with a memory of random vectors; yields process id and port."""
    port, memory = free_port(), given.folder / f"serve-{name}"
    clean = {key: value for key, value in os.environ.items() if not key.startswith("RECO_")}
    env = clean | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "RECO_THREADS": "1"}
    words = [sys.executable, "-m", "reco_plugin"]
    named = ["--model", str(given.model), "--memory", str(memory)]
    if not memory.exists():
        source = given.folder / "pairs.npz"
        drawn = np.random.default_rng(0).normal(size=(2, PAIRS, Artifact.load(given.model).manifest.dimension))
        image, text = drawn / np.linalg.norm(drawn, axis=2, keepdims=True)
        np.savez(source, id=[f"pair-{n}" for n in range(PAIRS)], image=image, text=text)
        subprocess.run(
            [*words, "memory", "build", str(source), *named], cwd=tree, env=env, check=True, stdout=sys.stderr
        )
    command, ready = [*words, "serve", "--port", str(port), *named], f"http://127.0.0.1:{port}/readyz"
    log = given.folder / f"serve-{name}.log"
    with running("reco serve", command, log, lambda: ask(ready), 120, patience_s=60, cwd=tree, env=env) as pid:
        yield pid, port


def _measure(pid: int, port: int, callers: int, refined: bool) -> tuple[float, float]:
    """Answers a second, and CPU seconds of an answer."""
    model, worked = "clip-reco-query" if refined else "clip", cpu_seconds(pid)
    bodies = [{"model": model, "input": f"a red circle, {number}"} for number in range(TEXTS)]
    answers, count = rate(port, [post("/v1/embeddings", body) for body in bodies], callers, SECONDS)
    return answers, (cpu_seconds(pid) - worked) / count
