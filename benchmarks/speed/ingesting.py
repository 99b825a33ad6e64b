"""How much of the encoder's rate a build reaches, and what the process that writes takes for each pair."""

from __future__ import annotations

import csv
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np

from reco_plugin import Reco
from reco_plugin.data.opening import open_rows
from reco_plugin.ingest import IngestOptions
from reco_plugin.ingest import ingest as ingested
from reco_plugin.ingest.run import encode_source
from reco_plugin.ingest.write import Writer
from reco_plugin.memory import open_memory
from reco_plugin.pairs import PairMemory
from reco_plugin.types import Records

from ..page import table
from ..stand_in import server
from ..synthetic import Synthetic
from .inputs import DIMENSION, Given, picture, vit
from .turns import take_turns

IMAGES, WIDTH, HEIGHT = 384, 640, 480
CAPTION = "a photograph of the thing with the number {}, on a table"


def ingest(given: Given) -> str:
    """The encoder alone on images that were decoded before, and all stages of a build into a new embedded memory.

    The pipeline reads, digests, decodes, resizes, tokenises, encodes, looks up and writes JPEG files of 640 × 480 and
    their captions; what is learned at the end of a build is left out, as it is once per build.
    """
    with (
        tempfile.TemporaryDirectory() as name,
        Reco.open(vit(given.folder), ":memory:", on_memory_failure="fail") as reco,
    ):
        folder, prepare = Path(name), reco.encoder.preparation
        files = [picture("JPEG", WIDTH, HEIGHT, seed) for seed in range(IMAGES)]
        source = _source(folder, files)
        images = [prepare.image(file).array for file in files]
        texts = [prepare.text(CAPTION.format(number), "a text").array for number in range(IMAGES)]
        turn = count()
        options = IngestOptions(rejected=folder / "rejected.jsonl", listed=folder / "listed.jsonl")

        def bare() -> None:
            for start in range(0, IMAGES, options.batch_size):
                rows = slice(start, start + options.batch_size)
                reco.encoder.arrays(images[rows], "image")
                reco.encoder.arrays(texts[rows], "text")

        def pipeline() -> None:
            pairs = PairMemory(open_memory(folder / f"memory-{next(turn)}", reco.manifest.fingerprint), reco.encoder)
            writer = Writer(pairs, options)
            for batch in encode_source(open_rows(source), reco.encoder, writer.sift, options):
                pairs.store.upsert(writer.records(batch))
            pairs.store.flush()
            if (written := len(pairs)) != IMAGES:
                raise SystemExit(f"the pipeline wrote {written} of {IMAGES} pairs")
            pairs.close()

        actions: dict[str, Callable[[], object]] = {"encoder alone": bare, "pipeline": pipeline}
        turns = take_turns(actions, given.rounds)
    rows = [
        [name, f"{IMAGES / turns.least(name):.1f}", f"{1000 * statistics.median(turns.cpu[name]) / IMAGES:.1f}"]
        for name in actions
    ]
    made = table(["", "pairs/s", "CPU ms a pair"], rows)
    return f"{made}\n\nThe pipeline has {turns.ratio('encoder alone', 'pipeline'):.2f} of the encoder's rate."


def _source(folder: Path, files: list[bytes]) -> Path:
    with (folder / "catalogue.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "image", "text"])
        for number, data in enumerate(files):
            (folder / f"{number}.jpg").write_bytes(data)
            writer.writerow([number, f"{number}.jpg", CAPTION.format(number)])
    return folder / "catalogue.csv"


def writing(given: Given) -> str:
    """CPU time of the process that writes a build: ready-made vectors, read, digested, looked up and written by gRPC.

    The server is the tests' stand-in, in a process of its own, so its time does not count, and what a real one takes is
    not measured.
    """
    pairs = 3 * min(given.pairs)
    with tempfile.TemporaryDirectory() as name, server("grpc") as url:
        folder, source = Path(name), Path(name, "arrays")
        source.mkdir()
        drawn = Records.join(list(Synthetic(pairs).records(0, pairs)), DIMENSION)
        for column, values in (("image", drawn.image), ("text", drawn.text), ("id", np.array(drawn.ids))):
            np.save(source / f"{column}.npy", values)
        options = IngestOptions(source="shop", rejected=folder / "rejected.jsonl", listed=folder / "listed.jsonl")
        with Reco.open(vit(given.folder), url, on_memory_failure="fail") as reco:
            worked = time.process_time()
            outcome = ingested(open_rows(source), reco, options)
            spent = time.process_time() - worked
    if outcome.added != pairs:
        raise SystemExit(f"{outcome.added} of {pairs} pairs were written")
    return f"{pairs / spent:,.0f} pairs per CPU second, of {pairs:,} pairs of {DIMENSION} dimensions."
