"""Training: the same seed gives the same weights, and it learns to use neighbours."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reco_plugin.errors import DataError
from reco_plugin.memory import Fingerprint, open_memory
from reco_plugin.train.data import FusionData, gather
from reco_plugin.train.loop import (
    FUSION,
    Fusions,
    TorchFuser,
    TrainConfig,
    load_fusions,
    train_fusions,
)
from reco_plugin.train.model import FusionConfig
from reco_plugin.types import Records

D, GROUPS, EACH = 32, 60, 4
SHORT = TrainConfig(steps=20, batch=16, warmup=4)


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


def data_of(pairs: Records, rows: range | None = None) -> FusionData:
    chosen = rows or range(len(pairs))
    part = Records(
        [pairs.ids[i] for i in chosen], pairs.image[chosen], pairs.text[chosen], [pairs.payloads[i] for i in chosen]
    )
    with closing(open_memory(":memory:", Fingerprint("mini", "ab" * 32, D))) as memory:
        memory.upsert(pairs)
        return gather(memory, part, 5, [id_.split("/")[0] for id_ in part.ids])


@pytest.fixture(scope="module")
def data() -> FusionData:
    return data_of(clusters())


def weights(fusions: Fusions) -> dict[str, torch.Tensor]:
    return fusions.state_dict()


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    assert a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) for name in a)


def test_the_seed_decides_the_weights(data: FusionData, tmp_path: Path) -> None:
    fusion = FusionConfig("paper", D)
    first = train_fusions(data, fusion, tmp_path / "a", SHORT)
    again = train_fusions(data, fusion, tmp_path / "b", SHORT)
    other = train_fusions(data, fusion, tmp_path / "c", replace(SHORT, seed=1))
    assert equal(weights(first), weights(again)) and not equal(weights(first), weights(other))
    untrained = train_fusions(data, fusion, tmp_path / "d", replace(SHORT, steps=0))
    assert not equal(weights(first), weights(untrained))
    assert equal(weights(load_fusions(tmp_path / "a" / FUSION)), weights(first))


def test_training_learns_to_read_the_neighbours(tmp_path: Path) -> None:
    """Captions are found through neighbours of the same group; the pair's own caption is hidden from its queries."""
    pairs = clusters()
    data, test = data_of(pairs, range(0, 160)), data_of(pairs, range(160, 240))  # 40 groups to learn from, 20 others
    config = TrainConfig(steps=150, batch=32, lr=3e-3, drop=0.1, rotate=0.7)  # of so few groups, else it memorises
    paper = FusionConfig("paper", D)
    untrained = train_fusions(data, paper, tmp_path / "0", replace(config, steps=0))
    trained = train_fusions(data, paper, tmp_path / "1", config)
    before, after = recall(untrained, test), recall(trained, test)
    frozen = found(test.pairs.image, test)
    assert frozen < 0.2 and before < 0.3  # the modalities say nothing of each other
    assert after > before + 0.4
    free = Fusions(FusionConfig("mean", D)).eval()
    assert recall(free, test) > before + 0.4  # starts where the plain layer has to get to


def recall(fusions: Fusions, data: FusionData) -> float:
    """Share of image queries that find a caption of their own group among all captions."""
    found_ = data.neighbours["image"]
    refined = TorchFuser(fusions).fuse("image", data.pairs.image, found_, found_.found.astype(np.float32)).vectors
    return found(refined, data)


def found(image: np.ndarray, data: FusionData) -> float:
    nearest = (image @ data.pairs.text.T).argmax(1)
    return float((data.groups[nearest] == data.groups).mean())


def test_curves_are_written(data: FusionData, tmp_path: Path) -> None:
    train_fusions(data, FusionConfig("paper", D), tmp_path, SHORT)
    (events,) = (tmp_path / "tensorboard").glob("events.out.tfevents.*")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curves = EventAccumulator(str(tmp_path / "tensorboard"))
    curves.Reload()
    assert [event.step for event in curves.Scalars("loss")] == [0, 10]
    assert curves.Scalars("temperature")[0].value == pytest.approx(20, rel=0.01)
    assert events.stat().st_size > 0


def test_a_mean_needs_no_training(data: FusionData, tmp_path: Path) -> None:
    fusions = train_fusions(data, FusionConfig("mean", D), tmp_path, SHORT)
    assert (tmp_path / FUSION).is_file() and not (tmp_path / "tensorboard").exists()
    assert load_fusions(tmp_path / FUSION).config == fusions.config


def test_one_group_is_too_few(data: FusionData, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two groups"):
        train_fusions(replace(data, groups=np.zeros(len(data), np.int64)), FusionConfig("paper", D), tmp_path, SHORT)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None, {"step": 3}, [1, 2], {"fusion": {}, "model": {}}])
def test_a_foreign_file_is_no_fusion(content: Any, tmp_path: Path) -> None:
    path = tmp_path / FUSION
    with pytest.raises(DataError, match="no trained fusion"):
        load_fusions(path)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(DataError, match=r"fusion\.pt"):
        load_fusions(path)


def test_a_fusion_of_other_shapes_than_it_says_is_refused(data: FusionData, tmp_path: Path) -> None:
    train_fusions(data, FusionConfig("paper", D), tmp_path, replace(SHORT, steps=0))
    saved = torch.load(tmp_path / FUSION, weights_only=True)
    saved["fusion"]["hidden"] = 7
    torch.save(saved, tmp_path / FUSION)
    with pytest.raises(DataError, match=r"fusion\.pt"):
        load_fusions(tmp_path / FUSION)


def test_a_torch_fuser_has_the_name_of_its_fusion() -> None:
    assert TorchFuser(Fusions(FusionConfig("mean", D))).name == "mean"
