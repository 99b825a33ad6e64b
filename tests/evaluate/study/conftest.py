"""Made-up clusters: a class has one place among images and another among texts, and the encoder barely links them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reco_plugin.data import Labelled
from reco_plugin.evaluate.study.config import StudyConfig
from reco_plugin.evaluate.study.study import Sets, Study, prepare
from reco_plugin.refine import refiner_for_vectors
from reco_plugin.types import Records

CLASSES, D = 40, 64
NAMES = tuple(f"thing {chr(97 + number // 26)}{chr(97 + number % 26)}" for number in range(CLASSES))


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


@dataclass
class World:
    """A memory that knows every class, and queries near the classes' images."""

    seed: int = 0
    rng: np.random.Generator = field(init=False)
    image: np.ndarray = field(init=False)
    text: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.image = unit(self.rng.normal(size=(CLASSES, D)))
        self.text = unit(0.25 * self.image + unit(self.rng.normal(size=(CLASSES, D))))

    def near(self, centres: np.ndarray, each: int, noise: float) -> np.ndarray:
        spread = unit(self.rng.normal(size=(len(centres) * each, D)))
        return unit(np.repeat(centres, each, 0) + noise * spread)

    def pairs(self, each: int = 4) -> Records:
        labels = np.repeat(np.arange(CLASSES), each)
        payloads = [{"caption": f"a picture of {NAMES[label]}, no {row}"} for row, label in enumerate(labels)]
        ids = [f"p{row}" for row in range(len(labels))]
        return Records(ids, self.near(self.image, each, 0.6), self.near(self.text, each, 0.1), payloads)

    def labelled(self, each: int = 3, **more: Any) -> Labelled:
        labels = np.repeat(np.arange(CLASSES), each)
        return Labelled("world", self.near(self.image, each, 0.6), labels, NAMES, (), self.text, **more)


Watch = Callable[[Any, str], Any]
MakeStudy = Callable[..., Study]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def make_study(tmp_path: Path) -> MakeStudy:
    """A study of vectors: options of the configuration, and pairs and set to use."""

    def make(
        records: Records, labelled: Labelled, *, folder: Path | None = None, dev: Labelled | None = None,
        watch: Watch = lambda items, _: items, distractors: Records | None = None, **options: Any,
    ) -> Study:  # fmt: skip
        from dataclasses import replace

        config = StudyConfig(source="test.npz", fuser="reco", **options)
        refiner = refiner_for_vectors([records])
        study = prepare(refiner, config, Sets(labelled, dev, None), folder or tmp_path / "run", watch=watch)
        return replace(study, distractors=distractors)

    return make
