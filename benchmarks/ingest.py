"""Images per second of the whole pipeline, against the encoder alone on images that were decoded before, in one run.

::

    reco export --model ViT-B-32 --random-weights --out .cache/ingest/vit-b-32
    python -m benchmarks.ingest --model .cache/ingest/vit-b-32

Bare: both encoder graphs on arrays in RAM, pixels (B, 224, 224, 3) and token ids, in batches of the settings.
Pipeline: ``reco_plugin.ingest`` from JPEG files of 640x480 and captions in a table into a new embedded memory: read,
digest, decode, resize, tokenise, encode, look up, write; the gate's calibration at its end is left out, as it is once
per build. Ways take turns, so that all see the machine in the same states; the ratio is the median of the turns'.

Two more figures say how near that is to what can be reached where decoding and encoding share the cores: the encoder
while threads decode the same images for nobody, and CPU seconds per pair, of which no overlap saves any.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reco_plugin import Reco
from reco_plugin.data.opening import open_rows
from reco_plugin.ingest.options import IngestOptions
from reco_plugin.ingest.prepare import Loaded, Prepared, encode, load, prepare, read_rows
from reco_plugin.ingest.run import encode_source
from reco_plugin.ingest.write import Writer

SIZE = (640, 480)
ACCEPTED = 0.9


@dataclass(frozen=True)
class Rate:
    """Speed of one turn.

    Attributes:
        pairs_s: pairs per second.
        cpu_ms: CPU milliseconds per pair, of all threads.
    """

    pairs_s: float
    cpu_ms: float


def main() -> None:
    """Print the table, and whether the ratio is reached; exit code 1 when not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=".cache/ingest/vit-b-32")
    parser.add_argument("--images", type=int, default=384, help="per turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="of the encoder")
    parser.add_argument("--decoders", type=int, default=0, help="threads that decode")
    parser.add_argument("--batch-size", type=int, default=256, help="rows that go through the stages together")
    parser.add_argument("--provider", choices=("cpu", "cuda"), default="cpu")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = make_source(Path(folder), told.images)
        options = IngestOptions(
            batch_size=told.batch_size,
            decoders=told.decoders,
            rejected=Path(folder) / "rejected.jsonl",
            listed=Path(folder) / "duplicates.jsonl",
        )
        settings: dict[str, Any] = {"threads": told.threads, "provider": told.provider, "on_memory_failure": "fail"}
        rates = measure(told.model, source, options, settings, told.turns)
    report(rates, told)


def measure(
    model: str, source: Path, options: IngestOptions, settings: dict[str, Any], turns: int
) -> dict[str, list[Rate]]:
    """Pairs per second of each way, one value per turn; a turn before them warms up."""
    rates: dict[str, list[Rate]] = {"bare": [], "pipeline": [], "bare beside decoding": []}
    with Reco.open(model, ":memory:", memory_kind="exact", **settings) as reco:
        ready_for = partial(prepare, preparation=reco.encoder.preparation)
        loaded = [row for row in map(load, read_rows(open_rows(source).parts)) if isinstance(row, Loaded)]
        ready = [row for row in map(ready_for, loaded) if isinstance(row, Prepared)]
        for turn in range(turns + 1):
            place = source.parent / f"memory-{turn}"
            once = {
                "bare": timed(lambda: encode(ready, reco.encoder), len(ready)),
                "pipeline": timed(partial(pipeline, reco, source, place, options), len(ready)),
                "bare beside decoding": beside_decoding(reco, ready, loaded, options.decoders or os.cpu_count() or 1),
            }
            if turn:
                for name, rate in once.items():
                    rates[name].append(rate)
    return rates


def pipeline(reco: Reco, source: Path, place: Path, options: IngestOptions) -> None:
    """All stages into a new embedded memory, with the encoder that is loaded already."""
    from reco_plugin.memory import open_memory
    from reco_plugin.pairs import PairMemory

    pairs = PairMemory(open_memory(place, reco.manifest.fingerprint), reco.encoder)
    writer = Writer(pairs, options)
    for batch in encode_source(open_rows(source), reco.encoder, writer.sift, options):
        pairs.store.upsert(writer.records(batch))
    pairs.store.flush()
    if (written := len(pairs)) != writer.outcome.read:
        raise SystemExit(f"the pipeline wrote {written} of {writer.outcome.read} pairs")
    pairs.close()


def beside_decoding(reco: Reco, ready: Sequence[Prepared], loaded: Sequence[Loaded], decoders: int) -> Rate:
    """Pairs per second of encoding and of decoding as many, both at once, nothing passed between them."""
    todo = iter(loaded)
    lock = threading.Lock()

    def decode() -> None:
        while True:
            with lock:
                row = next(todo, None)
            if row is None:
                return
            prepare(row, reco.encoder.preparation)

    def both() -> None:
        with _running(decode, decoders):
            encode(ready, reco.encoder)

    return timed(both, len(ready))


@contextmanager
def _running(work: Callable[[], None], count: int) -> Iterator[None]:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join()


def timed(work: Callable[[], object], items: int) -> Rate:
    """Time a piece of work on so many items."""
    begun, worked = time.perf_counter(), time.process_time()
    work()
    return Rate(items / (time.perf_counter() - begun), 1000 * (time.process_time() - worked) / items)


def make_source(folder: Path, images: int) -> Path:
    """JPEG photographs' like: smooth at large, textured in detail, about 90 kB each; and captions in a table."""
    rng = np.random.default_rng(0)
    sizes = []
    with (folder / "catalogue.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "image", "text"])
        for row in range(images):
            image = folder / f"{row}.jpg"
            textured(rng).save(image, quality=90)
            sizes.append(image.stat().st_size)
            writer.writerow([row, image.name, f"a photograph of the thing with the number {row}, on a table"])
    print(f"{images} JPEG images of {SIZE[0]}x{SIZE[1]}, {statistics.median(sizes) / 1000:.0f} kB each (median)")
    return folder / "catalogue.csv"


def textured(rng: np.random.Generator) -> Image.Image:
    """Noise of four scales, summed."""
    total = np.zeros((SIZE[1], SIZE[0], 3), np.float32)
    for cells, weight in ((4, 90.0), (16, 45.0), (64, 20.0), (320, 8.0)):
        noise = Image.fromarray(rng.integers(0, 256, (cells * 3 // 4, cells, 3), np.uint8)).resize(SIZE)
        total += (np.asarray(noise, np.float32) - 128) * weight / 90
    return Image.fromarray(np.clip(total + 128, 0, 255).astype(np.uint8))


def report(rates: dict[str, list[Rate]], told: argparse.Namespace) -> None:
    """Print medians with their range, and the ratios."""
    cores = os.cpu_count()
    print(
        f"{told.model} on {told.provider}, {cores} cores, encoder threads {told.threads or 'all'}, decoding threads "
        f"{told.decoders or cores}; {told.turns} turns"
    )
    print("| way | pairs/s, median | least | most | CPU ms per pair |\n|---|---|---|---|---|")
    for name, turns in rates.items():
        speeds, cpu = [turn.pairs_s for turn in turns], statistics.median(turn.cpu_ms for turn in turns)
        print(f"| {name} | {statistics.median(speeds):.1f} | {min(speeds):.1f} | {max(speeds):.1f} | {cpu:.1f} |")
    bare, pipe, beside = rates.values()
    ratio = statistics.median(p.pairs_s / b.pairs_s for p, b in zip(pipe, bare, strict=True))
    reachable = statistics.median(p.pairs_s / b.pairs_s for p, b in zip(pipe, beside, strict=True))
    work = statistics.median(b.cpu_ms / p.cpu_ms for p, b in zip(pipe, bare, strict=True))
    print(f"pipeline / bare = {ratio:.3f} (accepted from {ACCEPTED}); / bare beside decoding = {reachable:.3f}")
    print(f"CPU of bare / CPU of pipeline = {work:.3f}")
    raise SystemExit(ratio < ACCEPTED)


if __name__ == "__main__":
    main()
