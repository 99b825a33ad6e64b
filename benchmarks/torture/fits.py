"""``reco fit``, killed at random moments: what it comes to must be, file by file, what a run left alone does.

The catalogue is drawn here: 120 patterns under made-up names, 4 pictures each.
"""

from __future__ import annotations

import csv
import hashlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reco_plugin.fit.result import RESULT
from reco_plugin.train.loop import CHECKPOINT

from .found import MODEL, Found, Round

EACH = 5
"""Kills of one folder, at most, before the run is let finish."""
_SYLLABLES = ("ka", "lo", "mi", "tu", "ze", "ra", "po", "vi", "da", "ne", "shu", "gor")


def kill_fits(given: Round) -> Found:
    """Fits with the fusions that are fitted in closed form."""
    return _kill_fits(given, "auto")


def kill_paper_fits(given: Round) -> Found:
    """Fits with the paper's layer: most of the moments are in its training."""
    return _kill_fits(given, "paper")


def _kill_fits(given: Round, fuser: str) -> Found:
    found, folders, whole = Found(), 0, given.work / "whole"
    source = draw(given.work / "pictures")
    took, expected = _finish(source, whole, fuser), contents(whole)
    while given.until.more(found) or not found.tried:
        out, folders = given.work / f"killed-{folders}", folders + 1
        for _ in range(EACH):
            process = _start(source, out, fuser)
            time.sleep(given.rng.uniform(0.1, 0.9) * took)
            process.kill()
            process.communicate()
            if process.returncode == 0:
                break  # it was faster than that
            found.tried[f"fit --fuser {fuser}"] += 1
            if (out / RESULT).exists():
                if not expected.items() <= contents(out).items():
                    found.faults.append(f"{out.name} holds {RESULT} and is not whole")
                break
            if not given.until.more(found):
                break
        _finish(source, out, fuser)
        ended = contents(out)
        found.answers["equal to a run left alone" if ended == expected else "different"] += 1
        if ended != expected:
            changed = sorted(name for name in {*ended, *expected} if ended.get(name) != expected.get(name))
            found.faults.append(f"{out.name}: these differ: {', '.join(changed)}")
    return found


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
    import torch

    if path.name != CHECKPOINT:
        return path.read_bytes()
    return b"".join(_leaves(torch.load(path, weights_only=True)))


def _leaves(value: Any) -> Iterator[bytes]:
    import torch

    match value:
        case torch.Tensor():
            yield repr((value.dtype, value.shape)).encode() + value.numpy().tobytes()
        case dict() | list() | tuple():
            for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
                yield repr(key).encode()
                yield from _leaves(inner)
        case _:
            yield repr(value).encode()


def _start(source: Path, out: Path, fuser: str) -> subprocess.Popen[bytes]:
    """One run of the command, as a user starts it."""
    command = [
        sys.executable,
        "-m",
        "reco_plugin",
        "fit",
        source,
        "--out",
        out,
        "--k",
        "5",
        "--fuser",
        fuser,
        "--model",
        MODEL,
    ]
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def _finish(source: Path, out: Path, fuser: str) -> float:
    """A run to its end; returns its seconds."""
    begun, process = time.monotonic(), _start(source, out, fuser)
    _, error = process.communicate()
    if process.returncode:
        raise SystemExit(f"a run failed:\n{error.decode()}")
    return time.monotonic() - begun
