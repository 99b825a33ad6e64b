"""CPU of single steps of a request: ``python -m benchmarks.request_cost [STEP …]``, each beside what it replaced.

What is compared takes turns in one process, so that the ratios hold on a machine that does other work, too.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime

from reco_plugin.artifact import Artifact, clip_graph
from reco_plugin.preparation import Preparation

from .page import machine, table
from .speed.turns import Turns, take_turns

SEARCH_S = 0.004  # that a request waits for a Qdrant server


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


def _run_and_wait(session: onnxruntime.InferenceSession, inputs: dict[str, object], seconds: float) -> None:
    session.run(None, inputs)
    if seconds:
        time.sleep(seconds)


def _cells(turns: Turns, name: str, new: str, old: str) -> list[str]:
    cpu = [1000 * turns.least_cpu(each) for each in (old, new)]
    ratios = [cpu[1] / cpu[0], turns.least(new) / turns.least(old)]
    return [name, *(f"{value:.2f}" for value in (*cpu, *ratios))]


STEPS: dict[str, Callable[[Path, int], str]] = {"spinning": spinning}


def main() -> None:
    """Print a table for each step."""
    words = argparse.ArgumentParser(prog="python -m benchmarks.request_cost", description=__doc__)
    words.add_argument("steps", nargs="*", default=list(STEPS), help=f"some of: {', '.join(STEPS)}")
    words.add_argument("--model", type=Path, default=Path("triton_models"))
    words.add_argument("--rounds", type=int, default=7)
    told = words.parse_args()
    for name in told.steps:
        print(f"## {name}\n\n{STEPS[name](told.model, told.rounds)}\n", flush=True)
    print(machine("onnxruntime"))


if __name__ == "__main__":
    main()
