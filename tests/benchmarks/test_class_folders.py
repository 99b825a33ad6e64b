"""A set of torchvision becomes a labelled set and a source of pairs."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_sources import png

from benchmarks.class_folders import write_folders
from reco_plugin.sources import read_labelled, read_pairs

pytest.importorskip("torch")
from torchvision import datasets

pytestmark = pytest.mark.torch


def test_a_set_of_torchvision_is_read_as_classes_and_as_pairs(tmp_path: Path) -> None:
    for name in ("AnnualCrop/1.jpg", "Forest/1.jpg", "Forest/2.jpg"):
        path = tmp_path / "eurosat" / "2750" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png())
    write_folders(datasets.EuroSAT(tmp_path), tmp_path / "test")
    found, pairs = read_labelled(tmp_path / "test"), list(read_pairs(tmp_path / "test" / "pairs.csv"))
    assert (found.classes, found.labels.tolist()) == (("AnnualCrop", "Forest"), [0, 1, 1])
    assert (
        found.query_ids
        == tuple(pair.id for pair in pairs)
        == tuple(f"0000{label}/test-{row}.png" for row, label in enumerate((0, 1, 1)))
    )
    assert [pair.payload["class"] for pair in pairs] == ["AnnualCrop", "Forest", "Forest"]
