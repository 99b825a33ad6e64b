"""RECO's loss by hand and by open_clip's own; the same seed gives the same weights, and training reads neighbours."""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reco_plugin.errors import DataError
from reco_plugin.memory import Fingerprint, open_memory
from reco_plugin.types import Records

pytest.importorskip("torch")
import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss

from reco_plugin.export.train_layer import (
    FUSION,
    FusionConfig,
    Fusions,
    TorchFuser,
    TrainConfig,
    info_nce,
    load_fusions,
    reco_loss,
    train_fusions,
)
from reco_plugin.export.training_data import FusionData, gather

pytestmark = pytest.mark.torch

D, GROUPS, EACH = 32, 300, 4
SHORT = TrainConfig(steps=20, batch=16, warmup=4)
LAYER = FusionConfig(D)


def test_the_loss_by_hand() -> None:
    eye, scale = torch.eye(2), torch.tensor(2.0)
    swapped = eye.flip(0)
    right, wrong = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))  # the right pair's logit is 2 and 0
    assert info_nce(eye, eye, scale).item() == pytest.approx(right, abs=1e-6)
    assert info_nce(eye, swapped, scale).item() == pytest.approx(wrong, abs=1e-6)
    # refined image right, refined text wrong: R-R wrong, refined image - text right, image - refined text wrong
    assert reco_loss(eye, eye, eye, swapped, scale).item() == pytest.approx(2 * wrong + right, abs=1e-6)


def test_each_term_is_open_clips_loss_and_the_frozen_pair_has_none() -> None:
    torch.manual_seed(0)
    image, text, refined_image, refined_text = (F.normalize(torch.randn(6, 8), dim=-1) for _ in range(4))
    scale, theirs = torch.tensor(14.0), ClipLoss()
    terms = [(refined_image, refined_text), (refined_image, text), (image, refined_text)]
    expected = sum(theirs(a, b, scale) for a, b in terms)
    torch.testing.assert_close(reco_loss(image, text, refined_image, refined_text, scale), expected)


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def clusters(seed: int = 0) -> Records:
    """Things that each modality places on its own: what joins the two is in the memory alone."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(GROUPS), EACH)
    sides = [
        unit(unit(rng.normal(size=(GROUPS, D)))[group] + 0.5 * unit(rng.normal(size=(len(group), D)))) for _ in range(2)
    ]
    return Records([f"{g}/{i}" for i, g in enumerate(group)], *sides, [{"group": str(g)} for g in group])


def data_of(pairs: Records, rows: range) -> FusionData:
    part = pairs.take(np.arange(rows.start, rows.stop))
    with closing(open_memory(":memory:", Fingerprint("mini", "ab" * 32, D))) as memory:
        memory.upsert(pairs)
        return gather(memory, part, 5, [id_.split("/")[0] for id_ in part.ids])


@pytest.fixture(scope="module")
def data() -> FusionData:
    return data_of(clusters(), range(240))


def equal(one: Fusions, other: Fusions) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_seed_decides_the_weights_and_curves_are_written(data: FusionData, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first, again = (train_fusions(data, LAYER, tmp_path / name, SHORT) for name in "ab")
    other = train_fusions(data, LAYER, tmp_path / "c", replace(SHORT, seed=1))
    untrained = train_fusions(data, LAYER, tmp_path / "d", replace(SHORT, steps=0))
    assert equal(first, again) and not equal(first, other) and not equal(first, untrained)
    assert equal(load_fusions(tmp_path / "a" / FUSION), first)
    curves = EventAccumulator(str(tmp_path / "a" / "tensorboard"))
    curves.Reload()
    assert [event.step for event in curves.Scalars("loss")] == [0, 10]


def test_training_learns_to_read_the_neighbours(tmp_path: Path) -> None:
    """Captions are found through neighbours of the same group; the pair's own caption is hidden from its queries."""
    pairs = clusters()
    learned, test = data_of(pairs, range(1000)), data_of(pairs, range(1000, 1200))  # 250 groups, and 50 others
    config = TrainConfig(steps=300, batch=64, lr=3e-3)
    before = recall(train_fusions(learned, LAYER, tmp_path / "0", replace(config, steps=0)), test)
    after = recall(train_fusions(learned, LAYER, tmp_path / "1", config), test)
    assert found(test.pairs.image, test) < 0.2 and before < 0.3  # the modalities say nothing of each other
    assert after > before + 0.4


def recall(fusions: Fusions, data: FusionData) -> float:
    """Share of image queries that find a caption of their own group among all captions."""
    near = data.neighbours["image"]
    vectors = near.vectors_of(np.arange(len(data)))
    neighbours: Any = type("Found", (), {"vectors": vectors, "similarity": near.similarity})
    refined = (
        TorchFuser(fusions).fuse("image", data.pairs.image, neighbours, near.is_present.astype(np.float32)).vectors
    )
    return found(refined, data)


def found(image: np.ndarray, data: FusionData) -> float:
    nearest = (image @ data.pairs.text.T).argmax(1)
    return float((data.groups[nearest] == data.groups).mean())


def test_one_group_is_too_few(data: FusionData, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two groups"):
        train_fusions(replace(data, groups=np.zeros(len(data), np.int64)), LAYER, tmp_path, SHORT)


@pytest.mark.parametrize("content", [b"not a checkpoint", {"fusion": {}, "model": {}}])
def test_a_foreign_file_is_no_fusion(content: Any, tmp_path: Path) -> None:
    path = tmp_path / FUSION
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(DataError, match=r"fusion"):
        load_fusions(path)
