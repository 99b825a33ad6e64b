"""Labelled images for zero-shot classification."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..types import ImageInput, Vectors
from .images import pick

TemplatesFrom: TypeAlias = Literal["caller", "source", "model", "default"]
"""Where templates are from; ``default``: CLIP's own."""


@dataclass(frozen=True)
class Labelled:
    """N images with one of C classes each.

    Attributes:
        name: of the source.
        images: N images, or their vectors (N, D), unit-norm.
        labels: (N,) class of each image, 0 … C-1.
        classes: C names.
        templates: prompts with ``{}`` (or clip-benchmark's ``{c}``) where the class name goes; empty: those of
            the model.
        templates_from: where the templates are from.
        prompts: (C, D) unit-norm vectors of the classes; None where classes are embedded through the templates.
        query_ids: N ids; a pair of the memory with the same id is hidden from its own query. None: nothing is hidden.
        groups: (N,) groups for confidence intervals; None: the class.
        unseen: (C,) True for unseen classes; None where not known.
    """

    name: str
    images: Sequence[ImageInput] | Vectors
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    templates: tuple[str, ...] = ()
    prompts: Vectors | None = None
    query_ids: tuple[str, ...] | None = None
    groups: npt.NDArray[Any] | None = None
    unseen: npt.NDArray[np.bool_] | None = None
    templates_from: TemplatesFrom = "source"

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: npt.NDArray[np.int64]) -> Labelled:
        """Select images by row (M,), in this order; all classes stay, raw images stay unopened."""
        return replace(
            self,
            images=pick(self.images, rows),
            labels=self.labels[rows],
            query_ids=None if self.query_ids is None else tuple(self.query_ids[row] for row in rows),
            groups=None if self.groups is None else self.groups[rows],
        )


def check_labels(where: str, values: Sequence[Any], classes: int) -> npt.NDArray[np.int64]:
    """Check labels; returns them as an array (N,).

    Args:
        where: file and array, for the message.
        values: N labels.
        classes: C.

    Raises:
        DataError: a label is not a whole number from 0 to C-1.
    """
    for row, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < classes:
            raise DataError(f"{where}[{row}] is {value!r}, expected a whole number from 0 to {classes - 1}")
    return np.array(values, np.int64)
