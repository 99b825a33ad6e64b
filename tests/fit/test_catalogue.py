"""Reading a catalogue: what is kept, what is listed as rejected, what is encoded again, and what stops the run."""

from __future__ import annotations

import csv
import json
import threading
from collections.abc import Iterator, Sequence
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fit_worlds import D, made
from PIL import Image

from reco_plugin.artifact import Artifact
from reco_plugin.data import write_pairs
from reco_plugin.data.groups import check_column
from reco_plugin.data.opening import open_rows
from reco_plugin.encode import Encoder
from reco_plugin.errors import DataError
from reco_plugin.fit import catalogue as module
from reco_plugin.fit.catalogue import REJECTED, Catalogue, read_catalogue
from reco_plugin.ingest import IngestOptions
from reco_plugin.types import Records, Vectors


class Counting(Encoder):
    """Counts what it is asked for."""

    asked = 0

    def arrays(self, arrays: Sequence[Any], *args: Any) -> Vectors:
        Counting.asked += sum(array.dtype != np.float32 for array in arrays)
        return super().arrays(arrays, *args)


@pytest.fixture(autouse=True)
def counting(monkeypatch: pytest.MonkeyPatch) -> None:
    Counting.asked = 0
    monkeypatch.setattr(module, "open_encoder", Counting)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A table of 40 colours."""
    rows = [["id", "image", "text", "sku"]]
    for number in range(40):
        Image.new("RGB", (5, 4), (number * 6, 255 - number * 6, 90)).save(tmp_path / f"{number}.png")
        rows.append([f"p{number}", f"{number}.png", f"colour {number // 2}", f"sku-{number // 4}"])
    return written(tmp_path / "shop.csv", rows)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The run's folder."""
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def written(path: Path, rows: list[list[str]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def edited(shop: Path, row: int, **cells: str) -> Path:
    with shop.open(newline="") as file:
        rows = list(csv.reader(file))
    for name, value in cells.items():
        rows[row + 1][rows[0].index(name)] = value
    return written(shop, rows)


def read(source: str | Path, model: Path, out: Path, **options: Any) -> Catalogue:
    return read_catalogue(open_rows(source), Artifact.load(model), out, **options)


def listed(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / REJECTED).read_text().splitlines()]


def test_pairs_are_grouped_by_caption_or_by_a_column(shop: Path, model: Path, out: Path) -> None:
    plain, by_sku = read(shop, model, out), read(shop, model, out, group="sku")
    assert read(shop, model, out, group=check_column(open_rows(shop), "text")).groups == plain.groups
    assert len(plain) == 40 and len(set(plain.groups)) == 20 and len(set(by_sku.groups)) == 10
    assert plain.names == () and by_sku.names == ()  # sku-3 is no name to ask for
    assert plain.digest == by_sku.digest
    assert plain.rejected == 0 and not (out / REJECTED).exists()


def test_a_column_of_names_can_be_asked_for(shop: Path, model: Path, out: Path) -> None:
    for row in range(40):
        edited(shop, row, sku="red fox" if row % 2 else "blue owl")
    found = read(shop, model, out, group="sku")
    assert found.names == ("blue owl", "red fox") and found.prompts.shape == (2, D)


def test_a_second_reading_encodes_nothing_and_a_changed_catalogue_only_what_is_new(
    shop: Path, model: Path, out: Path
) -> None:
    first = read(shop, model, out)
    assert Counting.asked == 80
    again = read(shop, model, out)
    assert again.digest == first.digest and Counting.asked == 80
    with shop.open("a") as file:
        file.write("p40,0.png,colour 99,sku-9\n")
    edited(shop, 0, text="another colour")
    grown = read(shop, model, out)
    assert len(grown) == 41 and grown.digest != first.digest and Counting.asked == 84
    assert grown.pairs.payloads[0]["caption"] == "another colour"
    assert np.array_equal(grown.pairs.image[1:40], first.pairs.image[1:])


def test_a_reading_that_breaks_off_goes_on_and_comes_to_the_same(
    shop: Path, model: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IngestOptions", lambda: IngestOptions(batch_size=8))
    whole = read(shop, model, tmp_path / "whole")

    class Stop(Exception): ...

    def progress(rows: int, rejected: int) -> None:
        if len(list(out.rglob("*.npz"))) == 3:
            raise Stop

    Counting.asked = 0
    with pytest.raises(Stop):
        read(shop, model, out, progress=progress)
    kept = 3 * 2 * 8
    assert Counting.asked >= kept
    Counting.asked = 0
    assert read(shop, model, out).digest == whole.digest
    assert Counting.asked == 80 - kept


def test_what_cannot_be_used_is_rejected_with_its_reason(shop: Path, model: Path, out: Path) -> None:
    (shop.parent / "3.png").write_bytes(b"no image")
    (shop.parent / "9.png").unlink()
    edited(edited(shop, 5, text="  "), 7, text="x" * 5000)
    found = read(shop, model, out, max_error_rate=0.5)
    assert [row["id"] for row in listed(out)] == ["p3", "p5", "p9"]
    assert found.rejected == 3 and len(found) == 37 and "p3" not in found.pairs.ids
    assert any("cannot be read" in reason for reason in found.reasons)


def test_a_hopeless_source_is_refused(shop: Path, model: Path, out: Path) -> None:
    for number in range(20):
        (shop.parent / f"{2 * number}.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"20 of 40 rows were rejected.*0\.05 \(--max-error-rate\)"):
        read(shop, model, out)
    assert len(listed(out)) == 20
    for number in range(40):
        (shop.parent / f"{number}.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="40 of 40 rows were rejected"):
        read(shop, model, out, max_error_rate=1.0)


def test_of_two_rows_with_one_id_the_first_counts(shop: Path, model: Path, out: Path) -> None:
    edited(shop, 1, id="p0")
    with shop.open("a") as file:
        file.write("p5,5.png,colour 2,sku-1\n")  # the same once more is no harm
    for _ in range(2):  # encoded, and from the cache
        found = read(shop, model, out)
        assert len(found) == 39 and found.pairs.payloads[0]["caption"] == "colour 0"
        assert [row["id"] for row in listed(out)] == ["p0"]


def test_a_column_that_nobody_has(shop: Path, model: Path, out: Path) -> None:
    with pytest.raises(DataError, match=r"40 pairs have no 'colour' to group by"):
        read(shop, model, out, group="colour")


@pytest.fixture
def served(shop: Path) -> Iterator[str]:
    """The folder of the shop behind HTTP."""

    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(shop.parent))

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_images_behind_urls_are_fetched_once(shop: Path, model: Path, out: Path, tmp_path: Path, served: str) -> None:
    files = read(shop, model, tmp_path / "files")
    for row in range(40):
        edited(shop, row, image=f"{served}/{row}.png")
    edited(shop, 4, image=f"{served}/gone.png")
    found = read(shop, model, out)
    assert [row["id"] for row in listed(out)] == ["p4"] and "404" in listed(out)[0]["reason"]
    kept = [row for row in range(40) if row != 4]
    assert np.allclose(found.pairs.image, files.pairs.image[kept], atol=1e-5)
    Counting.asked = 0
    assert read(shop, model, out).digest == found.digest and Counting.asked == 0


def test_an_empty_source_and_none(tmp_path: Path, model: Path, out: Path) -> None:
    written(tmp_path / "empty.csv", [["id", "image", "text"]])
    with pytest.raises(DataError, match="empty"):
        read(tmp_path / "empty.csv", model, out)
    with pytest.raises(DataError, match="does not exist"):
        read(tmp_path / "nothing.csv", model, out)


def test_vectors_need_no_encoding_but_the_right_dimension(tmp_path: Path, model: Path, out: Path) -> None:
    records = made(10)
    write_pairs(tmp_path / "pairs.npz", [records])
    found = read(f"{tmp_path / 'pairs.npz'}?check=0", model, out)
    assert np.array_equal(found.pairs.image, records.image) and Counting.asked == 0
    assert len(set(found.groups)) == 10
    short = Records(records.ids, records.image[:, :1] * 0 + 1, records.text[:, :1] * 0 + 1, records.payloads)
    write_pairs(tmp_path / "short.npz", [short])
    with pytest.raises(DataError, match="40 of 40 rows were rejected"):
        read(f"{tmp_path / 'short.npz'}?check=0", model, out)
    assert "is it the same encoder" in listed(out)[0]["reason"]


def test_a_damaged_cache_is_named(shop: Path, model: Path, out: Path) -> None:
    read(shop, model, out)
    path = next(out.rglob("*.npz"))
    path.write_bytes(b"no archive")
    with pytest.raises(DataError, match=path.name):
        read(shop, model, out)
