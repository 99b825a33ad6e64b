"""Kill ``reco fit`` with SIGKILL at random moments; what it comes to in the end must be what an uninterrupted run does.

    python -m benchmarks.kill_fit                      # 20 kills, at most 5 in a folder; about 5 minutes
    python -m benchmarks.kill_fit --kills 3 --each 3
    python -m benchmarks.kill_fit --fuser paper        # most of the moments are in the training of the paper's layer

The catalogue is drawn here: 120 patterns under made-up names, 4 pictures each.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from reco_plugin.fit.result import RESULT
from reco_plugin.train.loop import CHECKPOINT

_SYLLABLES = ("ka", "lo", "mi", "tu", "ze", "ra", "po", "vi", "da", "ne", "shu", "gor")


def draw(folder: Path, patterns: int = 120, each: int = 4) -> Path:
    """Write the catalogue; returns its table."""
    folder.mkdir()
    rng, rows = np.random.default_rng(0), [["id", "image", "text"]]
    for pattern in range(patterns):
        colours = rng.integers(0, 256, (4, 4, 3))
        name = "".join(rng.choice(_SYLLABLES, 3))
        for picture in range(each):
            drawn = np.clip(colours + rng.normal(0, 25, colours.shape), 0, 255).astype(np.uint8)
            Image.fromarray(drawn).resize((64, 64), Image.Resampling.NEAREST).save(folder / f"{pattern}-{picture}.png")
            rows.append([f"{pattern}-{picture}", f"{pattern}-{picture}.png", f"{name} {pattern}"])
    with (folder / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder / "pairs.csv"


def start(source: Path, out: Path, options: Sequence[str]) -> subprocess.Popen[bytes]:
    """One run of the command, as a user starts it."""
    command = [sys.executable, "-m", "reco_plugin", "fit", str(source), "--out", str(out), "--k", "5", *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(source: Path, out: Path, options: Sequence[str]) -> float:
    """A run to its end; returns its seconds."""
    begun, process = time.monotonic(), start(source, out, options)
    _, error = process.communicate()
    if process.returncode:
        raise SystemExit(f"a run failed:\n{error.decode()}")
    return time.monotonic() - begun


def contents(out: Path) -> dict[str, str]:
    """Every file of a finished run with its checksum; of a checkpoint, of what it holds.

    Findings and report name the folder, so they are left out; and TensorBoard's logs, which name process and time.
    """
    return {
        str(path.relative_to(out)): hashlib.sha256(_bytes(path)).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and not path.name.startswith(("report", "findings", "events.out.tfevents"))
    }


def _bytes(path: Path) -> bytes:
    """Of a checkpoint all that it holds: pickle writes what was loaded in fewer or more words than what was made."""
    if path.name != CHECKPOINT:
        return path.read_bytes()
    return b"".join(_leaves(torch.load(path, weights_only=True)))


def _leaves(value: Any) -> Iterator[bytes]:
    match value:
        case torch.Tensor():
            yield repr((value.dtype, value.shape)).encode() + value.numpy().tobytes()
        case dict() | list() | tuple():
            for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
                yield repr(key).encode()
                yield from _leaves(inner)
        case _:
            yield repr(value).encode()


def kill(process: subprocess.Popen[bytes], moment: float) -> bool:
    """Whether a run was still going after so many seconds, and was killed."""
    time.sleep(moment)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="in all")
    parser.add_argument("--each", type=int, default=5, help="in one folder, before the run is let finish")
    parser.add_argument("--model", default="triton_models", help="model folder")
    parser.add_argument("--fuser", default="auto", help="as of reco fit")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    given = parser.parse_args()
    options = ["--model", given.model, "--fuser", given.fuser]
    rng, killed, folders = random.Random(given.seed), 0, 0
    with tempfile.TemporaryDirectory() as tmp:
        source = draw(Path(tmp) / "pictures")
        took = finish(source, Path(tmp) / "whole", options)
        expected = contents(Path(tmp) / "whole")
        print(f"uninterrupted: {took:.1f} s, {len(expected)} files")
        while killed < given.kills:
            out, folders = Path(tmp) / f"killed-{folders}", folders + 1
            for _ in range(min(given.each, given.kills - killed)):
                moment = rng.uniform(0.1, 1.0) * took
                if not kill(start(source, out, options), moment):
                    break  # it was faster than that
                killed += 1
                model, whole = (out / "model" / "manifest.json").exists(), (out / RESULT).exists()
                print(f"kill {killed}: folder {folders}, after {moment:.1f} s, {model=}, {whole=}")
                if whole:
                    break
            if (out / RESULT).exists() and not expected.items() <= contents(out).items():
                raise SystemExit(f"{out} holds {RESULT} and is not whole")
            took = finish(source, out, options)
            if (found := contents(out)) != expected:
                changed = {name for name in {*found, *expected} if found.get(name) != expected.get(name)}
                raise SystemExit(f"after {killed} kills these differ: {sorted(changed)}")
    print(f"{killed} kills in {folders} folders: each came to the files of an uninterrupted run")


if __name__ == "__main__":
    main()
