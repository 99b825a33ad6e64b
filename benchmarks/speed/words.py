"""What it costs to find captions by their words: a refined text, a build, and the disk."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle

import numpy as np
from PIL import Image

from reco_plugin import Reco
from reco_plugin.memory.words import stored_words
from reco_plugin.quickstart.dataset import load
from reco_plugin.types import Records

from ..page import table
from .inputs import Given
from .turns import take_turns

LEARNED, CALLS, BLOCK = 2000, 30, 1000


def by_words(given: Given) -> str:
    """Ratios of what is done with words to what is done without, in one run."""
    pairs, folder = max(given.pairs), given.folder / "words"
    shutil.rmtree(folder, ignore_errors=True)
    drawn = load()
    rows = np.random.default_rng(0).permutation(len(drawn.items))[:LEARNED].tolist()
    captions = [f"Sticker {drawn.items[row].caption} no. QX-{row}-B" for row in rows]
    images = [Image.fromarray(drawn.images[row]) for row in rows]
    with Reco.open(given.model, memory=folder / "kept") as reco:
        begun = time.perf_counter()
        image, text = reco.encoder.images(images), reco.encoder.texts(captions)
        encoding = (time.perf_counter() - begun) / LEARNED
        first = Records([f"{row}" for row in rows], image, text, [{"caption": one} for one in captions])
        reco.memory.add_records([first])
        grow = partial(_grown, image, text, captions)
        for records in grow(pairs - LEARNED, "caption"):
            reco.memory.store.upsert(records)
        asked = {
            "a part number": [f"QX-{row}-B" for row in rows[:CALLS]],
            "a name": [drawn.items[row].caption for row in rows[:CALLS]],
            "a word of all captions": ["sticker"],
            "words of none": [f"unheard of {number}" for number in range(CALLS)],
        }
        reco.embed_texts(["sticker"])
        while "being made" in getattr(reco.memory.store, "index_state", ""):  # by a thread, whose time would count
            time.sleep(0.2)
        lines = []
        for name, texts in asked.items():
            ask = {way: _asking(reco, texts, words=way == "with") for way in ("with", "without")}
            turns = take_turns(ask, 2 * given.rounds, CALLS)
            cpu = [turns.cpu["without"], turns.cpu["with"]]
            ratio = np.median(np.array(cpu[1]) / np.array(cpu[0]))
            lines.append([f"a refined text: {name}", *(f"{1000 * np.median(one):.1f}" for one in cpu), f"{ratio:.2f}"])
    seconds, sizes = dict[str, float](), dict[str, int]()
    for key in ("said", "caption"):
        with Reco.open(given.model, memory=folder / key) as reco:
            begun = time.process_time()
            for records in grow(20 * BLOCK, key):
                reco.memory.store.upsert(records)
            reco.memory.store.flush()
            seconds[key] = (time.process_time() - begun) / (20 * BLOCK) + encoding
        sizes[key] = sum(512 * path.stat().st_blocks for path in (folder / key).rglob("*"))  # without their holes
    each = float(np.mean([len(stored_words(one)) for one in captions]))
    ratio = seconds["caption"] / seconds["said"]
    lines.append(["a pair built", *(f"{1000 * seconds[key]:.2f}" for key in ("said", "caption")), f"{ratio:.2f}"])
    bytes_each = (sizes["caption"] - sizes["said"]) / (20 * BLOCK * each)
    shutil.rmtree(folder)
    held = f"{pairs:,} pairs in a folder, encoded by {given.model.name}"
    said = f"{held}; a word of a caption takes {bytes_each:.0f} bytes there."
    return said + "\n\n" + table(["what", "ms of CPU without", "with words", "ratio"], lines)


def _asking(reco: Reco, texts: list[str], *, words: bool) -> Callable[[], object]:
    turn = cycle(texts)
    return lambda: reco.embed_texts([next(turn)], words=words)


def _grown(image: np.ndarray, text: np.ndarray, captions: list[str], more: int, key: str) -> Iterator[Records]:
    """So many pairs near those that are there, each with a number of its own, and its caption under a key."""
    rng = np.random.default_rng(1)
    for start in range(0, more, BLOCK):
        size = min(BLOCK, more - start)
        near = rng.integers(len(image), size=size)
        sides = [
            side[near] + 0.3 * rng.normal(size=(size, side.shape[1])) / side.shape[1] ** 0.5 for side in (image, text)
        ]
        moved = [np.asarray(side / np.linalg.norm(side, axis=1, keepdims=True), np.float32) for side in sides]
        said = [{key: f"{captions[row]} {start + place}"} for place, row in enumerate(near.tolist())]
        yield Records([f"more {start + place}" for place in range(size)], moved[0], moved[1], said)
