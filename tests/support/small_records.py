"""Pairs whose vectors are 8-d and computable in the head: axis(0) is 1 in the first place."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from reco_plugin.memory import Memory
from reco_plugin.memory.header import SaidRecord
from reco_plugin.signals.opinions import Opinion, Opinions
from reco_plugin.types import Records

D = 8


def axis(place: int) -> np.ndarray:
    return np.eye(D, dtype=np.float32)[place]


def lean(place: int, towards: int, cosine: float) -> np.ndarray:
    """Unit vector whose cosine with axis(place) is given."""
    return np.asarray(cosine * axis(place) + np.sqrt(1 - cosine**2) * axis(towards), np.float32)


def unit(seed: int, rows: int, dimension: int = D) -> np.ndarray:
    made = np.random.default_rng(seed).standard_normal((rows, dimension)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def records(
    ids: Sequence[str], image: Any = None, text: Any = None, payloads: Sequence[dict[str, Any]] | None = None
) -> Records:
    image = unit(1, len(ids)) if image is None else np.asarray(image, np.float32)
    text = unit(2, len(ids)) if text is None else np.asarray(text, np.float32)
    return Records(list(ids), image, text, payloads or [{} for _ in ids])


@cache
def _said(number: int) -> SaidRecord:
    opinion = Opinion(f"{number:032x}", "text", f"p{number}", number % 2 == 0, "ann", "2026-11-29T00:00:00+00:00")
    return Opinions((opinion,), unit(number, 1), unit(number + 1, 1)).to_records()[0]


def said_record(number: int) -> SaidRecord:
    """What somebody said, as a memory stores it; those of larger numbers came later."""
    return dict(_said(number)) | {"n": number}


def everything(memory: Memory, batch_size: int = 1024) -> dict[str, tuple[np.ndarray, np.ndarray, dict[str, Any]]]:
    return {
        name: (batch.image[row], batch.text[row], dict(batch.payloads[row]))
        for batch in memory.scroll(batch_size)
        for row, name in enumerate(batch.ids)
    }
