"""Ranks of a way to refine: texts search images, images search texts, images search names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from ..evaluate.metrics import Interval, bootstrap, ranks
from ..refine import Refiner
from ..retrieve import Retrieval
from ..types import Modality, Vectors
from .candidates import Way
from .questions import Questions

Side: TypeAlias = Literal["text", "image", "names"]
"""What may be refined: text queries, image queries, and class names, which compete as candidates."""
SIDES: tuple[Side, ...] = get_args(Side)
Task: TypeAlias = Literal["text->image", "image->text", "image->name"]
TASKS: tuple[Task, ...] = get_args(Task)
Ranks: TypeAlias = npt.NDArray[np.int64]
KS = (1, 5, 10)


@dataclass(frozen=True)
class QueryVectors:
    """One way's vectors of all that asks; names only where groups are names."""

    text: Vectors
    image: Vectors
    names: Vectors | None

    def side(self, side: Side) -> Vectors | None:
        """Vectors of one side."""
        return {"text": self.text, "image": self.image, "names": self.names}[side]

    def with_side(self, side: Side, of: QueryVectors) -> QueryVectors:
        """The same with one side of another way."""
        return QueryVectors(
            text=of.text if side == "text" else self.text,
            image=of.image if side == "image" else self.image,
            names=of.names if side == "names" else self.names,
        )


def plain(questions: Questions) -> QueryVectors:
    """Frozen CLIP."""
    return QueryVectors(questions.texts, questions.images, questions.prompts)


def refined(questions: Questions, way: Way, sides: tuple[Side, ...] = SIDES, *, known: bool = True) -> QueryVectors:
    """Refine some sides and leave the others frozen.

    Args:
        questions: of a part.
        way: to refine.
        sides: which.
        known: retrieve from the memory that holds other pairs of what is asked for; else from the one without.
    """
    memory = (questions.memory if known else questions.without).at(way.k)
    refiner = Refiner(memory, way.fuser, Retrieval(way.k), gate=way.gated, candidate_height=way.height)
    frozen = plain(questions)

    def moved(side: Side, modality: Modality, hidden: list[set[str]], *, candidates: bool = False) -> Vectors:
        vectors = frozen.side(side)
        assert vectors is not None  # noqa: S101 - asked below
        if side not in sides:
            return vectors
        role: Literal["query", "candidate"] = "candidate" if candidates else "query"
        return refiner.refine(vectors, modality=modality, role=role, exclude=hidden).vectors

    return QueryVectors(
        text=moved("text", "text", questions.text_hidden),
        image=moved("image", "image", questions.image_hidden),
        names=None if frozen.names is None else moved("names", "text", questions.prompt_hidden, candidates=True),
    )


def task_ranks(questions: Questions, task: Task, vectors: QueryVectors) -> Ranks | None:
    """Rank of each query's best true result, 0 is best; None where there is no such task.

    What text queries and image queries search is plain: an index that exists already.
    """
    images, texts = questions.image_groups, questions.text_groups
    if task == "text->image":
        return ranks(vectors.text, questions.images, texts, images)
    if task == "image->text":
        return ranks(vectors.image, questions.texts, images, texts)
    return None if vectors.names is None else ranks(vectors.image, vectors.names, images)


def groups_of_task(questions: Questions, task: Task) -> npt.NDArray[np.int64]:
    """Group of each query, to draw intervals over."""
    return questions.text_groups if task == "text->image" else questions.image_groups


def gain(questions: Questions, task: Task, after: Ranks, before: Ranks, *, seed: int) -> Interval:
    """Difference in recall at 1, bootstrapped over groups."""
    hits = (after < 1).astype(np.float64) - (before < 1)
    return bootstrap(hits, groups_of_task(questions, task), seed=seed)
