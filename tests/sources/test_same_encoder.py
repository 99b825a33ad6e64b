"""Vectors of another encoder in a source: noticed wherever captions or pictures are at hand."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reco_plugin import Pair, Reco
from reco_plugin.errors import FingerprintMismatch
from reco_plugin.evaluation.labelled_set import ReadOptions, read_labelled_set
from reco_plugin.ingest.fill import ingest
from reco_plugin.ingest.run_options import IngestOptions
from reco_plugin.ingest.write import Outcome
from reco_plugin.sources import open_rows, write_pairs
from reco_plugin.sources.same_encoder import COMPARED
from reco_plugin.types import Records

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path, reco: Reco, drawings: list[Pair]) -> Write:
    """Writes the drawings twice, as vectors, with captions or paths of pictures; some vectors turned."""
    pairs = drawings * 2
    images = [pair.image for pair in pairs]
    encoded = {"image": reco.encoder.images(images), "text": reco.encoder.texts([str(pair.text) for pair in pairs])}
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(reco.encoder.dimension,) * 2))[0].astype(np.float32)

    def make(*turned: str, at_hand: tuple[str, ...] = ("caption", "image"), name: str = "pairs.npz") -> str:
        sides = {side: vectors @ turn if side in turned else vectors for side, vectors in encoded.items()}
        payloads: list[dict[str, Any]] = []
        for number, pair in enumerate(pairs):
            assert isinstance(pair.image, Image.Image)
            pair.image.save(tmp_path / f"{number}.png")
            beside = {"caption": str(pair.text), "image": f"{number}.png"}
            payloads.append({key: beside[key] for key in at_hand})
        ids = [f"p{number}" for number in range(len(pairs))]
        write_pairs(tmp_path / name, [Records(ids, sides["image"], sides["text"], payloads)])
        return str(tmp_path / name)

    return make


@pytest.fixture
def fill(tmp_path: Path, reco: Reco) -> Callable[[str], Outcome]:
    options = IngestOptions(rejected=tmp_path / "rejected.jsonl", allow_private_urls=True)
    return lambda source: ingest(open_rows(source), reco, options)


@pytest.mark.parametrize(
    ("turned", "what", "name"), [("image", "pictures", "pairs.npz"), ("text", "captions", "pairs.parquet")]
)
def test_vectors_of_another_encoder_are_refused_and_nothing_is_written(
    turned: str, what: str, name: str, write: Write, fill: Callable[[str], Outcome], reco: Reco
) -> None:
    source = write(turned, name=name)
    with pytest.raises(FingerprintMismatch, match=rf"{turned} vectors of another.* {COMPARED} {what}.*check=0"):
        fill(source)
    assert len(reco.memory) == 0
    outcome = fill(f"{source}?check=0")
    assert (outcome.added, len(reco.memory)) == (48, 48)
    assert outcome.vectors and outcome.vectors.count("were not checked to be of this encoder: check=0") == 2


def test_the_outcome_says_what_was_compared(write: Write, fill: Callable[[str], Outcome], drawings: list[Pair]) -> None:
    both = fill(write()).vectors
    assert both and f"{COMPARED} pictures agree (mean cosine 1.000)" in both and f"{COMPARED} captions agree" in both
    assert fill(write()).vectors is None, "unchanged rows are not looked at"
    captions = fill(write("image", at_hand=("caption",))).vectors
    assert captions and "image vectors were not checked to be of this encoder: no picture is available" in captions
    assert f"{COMPARED} captions agree" in captions
    bare = fill(write("image", "text", at_hand=())).vectors
    assert bare and bare.count("were not checked") == 2


def test_raw_pairs_need_no_check(tmp_path: Path, fill: Callable[[str], Outcome], drawings: list[Pair]) -> None:
    drawings[0].image.save(tmp_path / "a.png")  # type: ignore[union-attr]
    (tmp_path / "raw.csv").write_text(f"id,image,text\na,a.png,{drawings[0].text}\n")
    assert fill(str(tmp_path / "raw.csv")).vectors is None


def test_pictures_behind_urls_are_fetched_unless_they_are_away(
    tmp_path: Path, reco: Reco, drawings: list[Pair], fill: Callable[[str], Outcome]
) -> None:
    """Each of a host that is away would take seconds."""
    asked = list[str]()

    class Pictures(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            number = self.path.removeprefix("/there/")
            if not number.isdigit():
                self.send_error(404)
                return
            drawings[int(number)].image.save(body := io.BytesIO(), "PNG")  # type: ignore[union-attr]
            self.send_response(200)
            self.send_header("content-length", str(len(body.getvalue())))
            self.end_headers()
            self.wfile.write(body.getvalue())

        def log_message(self, *_: object) -> None:
            return

    vectors = reco.encoder.images([pair.image for pair in drawings])
    with ThreadingHTTPServer(("127.0.0.1", 0), Pictures) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        for place, told, count in (("there", "24 pictures agree", 24), ("away", "no picture is available", 3)):
            asked.clear()
            payloads = [{"image": f"http://127.0.0.1:{http.server_port}/{place}/{n}"} for n in range(24)]
            ids = [f"{place}-{n}" for n in range(24)]
            write_pairs(tmp_path / f"{place}.npz", [Records(ids, vectors, vectors, payloads)])
            assert told in str(fill(str(tmp_path / f"{place}.npz")).vectors)
            assert len(asked) == count
        http.shutdown()


def test_an_evaluation_refuses_them_too(tmp_path: Path, write: Write, reco: Reco) -> None:
    how = ReadOptions(reco.encoder, reco.manifest.fingerprint, tmp_path / "run")
    with pytest.raises(FingerprintMismatch, match="text vectors of another encoder"):
        read_labelled_set(write("text"), how)


def test_a_damaged_picture_is_left_out_of_the_comparison(
    tmp_path: Path, write: Write, fill: Callable[[str], Outcome]
) -> None:
    source = write()
    (tmp_path / "3.png").write_bytes(b"none")
    outcome = fill(source)
    assert outcome.vectors and f"{COMPARED} pictures agree" in outcome.vectors
