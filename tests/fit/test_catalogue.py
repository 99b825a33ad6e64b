"""Reading a catalogue: what is kept, what is listed as rejected, and what stops the run."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from fit_worlds import FINGERPRINT, D, made
from PIL import Image

from reco_plugin.data import write_pairs
from reco_plugin.errors import DataError, ImageError, VectorError
from reco_plugin.evaluate.cached import CachedEncoder
from reco_plugin.evaluate.frozen import Progress
from reco_plugin.fit import catalogue as module
from reco_plugin.fit.catalogue import Catalogue, read_catalogue
from reco_plugin.preprocess import ImageConfig, images_to_array
from reco_plugin.types import ImageInput, Records, Vectors


class ColourEncoder:
    """An image is its mean colour, a text its length; counts what it was asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def images(self, images: Sequence[ImageInput], progress: Progress) -> Vectors:
        self.asked += len(images)
        pixels = images_to_array(images, ImageConfig(size=(4, 4)))
        return self._unit(1.0 + pixels.reshape(len(pixels), -1)[:, :3])

    def texts(self, texts: Sequence[str], progress: Progress) -> Vectors:
        self.asked += len(texts)
        return self._unit(np.array([[1.0, len(text), 2.0] for text in texts]))

    def _unit(self, few: np.ndarray) -> Vectors:
        padded = np.pad(few, ((0, 0), (0, D - few.shape[1])))
        return np.asarray(padded / np.linalg.norm(padded, axis=1, keepdims=True), np.float32)


@pytest.fixture
def encoder(tmp_path: Path) -> CachedEncoder:
    return CachedEncoder(ColourEncoder(), FINGERPRINT, tmp_path / "cache")


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A table of 40 colours."""
    rows = [["id", "image", "text", "sku"]]
    for number in range(40):
        Image.new("RGB", (5, 4), (number * 6, 255 - number * 6, 90)).save(tmp_path / f"{number}.png")
        rows.append([f"p{number}", f"{number}.png", f"colour {number // 2}", f"sku-{number // 4}"])
    return written(tmp_path / "shop.csv", rows)


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


def quietly(source: Path, encoder: CachedEncoder, **options: object) -> Catalogue:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read_catalogue(str(source), encoder, **options)  # type: ignore[arg-type]


def asked(encoder: CachedEncoder) -> int:
    inner = encoder.encoder
    assert isinstance(inner, ColourEncoder)
    return inner.asked


def test_pairs_are_grouped_by_caption_or_by_a_column(shop: Path, encoder: CachedEncoder) -> None:
    plain, by_sku = read_catalogue(str(shop), encoder), read_catalogue(str(shop), encoder, group="sku")
    assert len(plain) == 40 and len(set(plain.groups)) == 20 and len(set(by_sku.groups)) == 10
    assert plain.names == () and by_sku.names == ()  # sku-3 is no name to ask for
    assert plain.digest == by_sku.digest


def test_a_column_of_names_can_be_asked_for(shop: Path, encoder: CachedEncoder) -> None:
    for row in range(40):
        edited(shop, row, sku="red fox" if row % 2 else "blue owl")
    found = read_catalogue(str(shop), encoder, group="sku")
    assert found.names == ("blue owl", "red fox") and found.prompts.shape == (2, D)


def test_a_second_reading_encodes_nothing_and_a_grown_catalogue_only_what_is_new(
    shop: Path, encoder: CachedEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BLOCK", 8)
    first = read_catalogue(str(shop), encoder)
    assert asked(encoder) == 80
    assert read_catalogue(str(shop), encoder).digest == first.digest and asked(encoder) == 80
    with shop.open("a") as file:
        file.write("p40,0.png,colour 99,sku-9\n")
    grown = read_catalogue(str(shop), encoder)
    assert len(grown) == 41 and grown.digest != first.digest and asked(encoder) == 82


def test_blocks_make_no_difference(shop: Path, encoder: CachedEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read_catalogue(str(shop), encoder)
    monkeypatch.setattr(module, "_BLOCK", 7)
    assert read_catalogue(str(shop), encoder).digest == whole.digest


def test_what_cannot_be_read_is_rejected_with_its_reason(shop: Path, encoder: CachedEncoder) -> None:
    (shop.parent / "3.png").write_bytes(b"no image")
    edited(edited(shop, 5, text="  "), 7, text="x" * 5000)
    with pytest.warns(UserWarning, match=r"2 of 40 pairs were rejected, the first: "):
        found = read_catalogue(str(shop), encoder, max_error_rate=0.5)
    assert any("missing or empty" in row.reason for row in found.rejected) and len(found.rejected) == 2
    assert len(found) == 38 and "p3" not in found.pairs.ids


def test_a_hopeless_source_is_refused(shop: Path, encoder: CachedEncoder) -> None:
    for number in range(20):
        (shop.parent / f"{2 * number}.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"20 of the first 40 pairs cannot be used.*--max-error-rate 0.05.*p0"):
        quietly(shop, encoder)
    with pytest.raises(DataError, match="holds no pair that can be used"):
        for number in range(40):
            (shop.parent / f"{number}.png").write_bytes(b"no image")
        quietly(shop, encoder, max_error_rate=1.0)


def test_of_two_pairs_with_one_id_the_first_is_kept(shop: Path, encoder: CachedEncoder) -> None:
    edited(shop, 1, id="p0")
    found = quietly(shop, encoder)
    assert len(found) == 39 and [row.id for row in found.rejected] == ["p0"]


def test_a_column_that_nobody_has(shop: Path, encoder: CachedEncoder) -> None:
    with pytest.raises(DataError, match=r"40 pairs have no 'colour' to group by"):
        quietly(shop, encoder, group="colour")


def test_images_behind_urls_are_to_be_downloaded_first(shop: Path, encoder: CachedEncoder) -> None:
    for row in range(40):
        edited(shop, row, image=f"https://shop.example/{row}.png")
    with pytest.raises(DataError, match="is a URL: download the images first"):
        quietly(shop, encoder)


def test_an_empty_source_and_none(tmp_path: Path, encoder: CachedEncoder) -> None:
    written(tmp_path / "empty.csv", [["id", "image", "text"]])
    with pytest.raises(DataError, match="empty"):
        quietly(tmp_path / "empty.csv", encoder)
    with pytest.raises(DataError, match="does not exist"):
        quietly(tmp_path / "nothing.csv", encoder)


def test_vectors_need_no_encoding_but_the_right_dimension(tmp_path: Path, encoder: CachedEncoder) -> None:
    records = made(10)
    write_pairs(tmp_path / "pairs.npz", [records])
    found = quietly(tmp_path / "pairs.npz", encoder)
    assert np.array_equal(found.pairs.image, records.image) and asked(encoder) == 0
    assert len(set(found.groups)) == 10
    short = Records(records.ids, records.image[:, :1] * 0 + 1, records.text[:, :1] * 0 + 1, records.payloads)
    write_pairs(tmp_path / "short.npz", [short])
    with pytest.raises(VectorError, match="same encoder"):
        quietly(tmp_path / "short.npz", encoder)


def test_one_bad_image_among_good_ones_is_an_error_of_the_encoder(shop: Path) -> None:
    (shop.parent / "0.png").write_bytes(b"no image")  # what the rejection above relies on
    with pytest.raises(ImageError):
        ColourEncoder().images([shop.parent / "0.png"], lambda _: None)
