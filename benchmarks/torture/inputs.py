"""What is sent, and what must come back.

Every answer is known before the service starts, although the memory is written meanwhile: pairs in it are replaced
by themselves, and what comes and goes lies opposite of all queries, where no search finds it.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from reco_plugin import Pair, Reco
from reco_plugin.types import Vectors

from ..callers import png

WHERE = {"pinned": True}  # which all pairs are that queries find, so that it filters and changes nothing
PLAIN, FILTERED, MIXED, VECTORS = "1 text, plain", "1 text, where", "8 texts and images", "16 vectors"
KINDS = {"1 text": 9, "1 image": 5, PLAIN: 2, MIXED: 2, VECTORS: 1, FILTERED: 1}
"""What is sent and how often, in parts of 20."""


@dataclass(frozen=True)
class Side:
    """Inputs of one modality with their vectors.

    Attributes:
        items: N, as they are sent: ``{"text": …}`` or ``{"image": …}``.
        plain: (N, D) frozen.
        refined: (N, D) through the pinned pairs.
    """

    items: Sequence[dict[str, str]]
    plain: Vectors
    refined: Vectors


@dataclass(frozen=True)
class Known:
    """Both modalities, and the pairs that the answers come from."""

    text: Side
    image: Side
    pairs: Sequence[Pair]

    def far_pairs(self, name: str, count: int) -> list[Pair]:
        """Pairs of vectors that are no query's neighbours: those of the opposite direction."""
        sides = {modality: -side.plain.mean(axis=0) for modality, side in (("image", self.image), ("text", self.text))}
        image, text = (vector / np.linalg.norm(vector) for vector in (sides["image"], sides["text"]))
        return [Pair(f"{name}/{number}", image, text) for number in range(count)]


@dataclass(frozen=True)
class Request:
    """One request and its answer.

    Attributes:
        kind: for the report.
        path: of the URL.
        body: JSON.
        expected: (B, D) of the answer.
        plain: (B, D) that come instead when the answer says that it is degraded.
    """

    kind: str
    path: str
    body: dict[str, Any]
    expected: Vectors
    plain: Vectors


def prepare(model: Path, memory: Path, pairs: Sequence[Pair], texts: Sequence[str], images: Sequence[Any]) -> Known:
    """Fill a memory and work out all answers in this process; the memory is closed again.

    Args:
        model: model folder.
        memory: an empty folder.
        pairs: what it holds.
        texts: N texts.
        images: M PIL images.
    """
    encoded = [png(image) for image in images]
    pinned = [replace(pair, payload={**pair.payload, **WHERE}) for pair in pairs]
    with Reco.open(model, memory=memory, on_memory_failure="fail") as reco:
        reco.memory.add(pinned)
        plain_texts = reco.embed_texts(texts, refine=False)
        plain_images = reco.embed_images(encoded, refine=False)
        return Known(
            Side([{"text": text} for text in texts], plain_texts, reco.refine(plain_texts, modality="text").vectors),
            Side(
                [{"image": base64.b64encode(image).decode()} for image in encoded],
                plain_images,
                reco.refine(plain_images, modality="image").vectors,
            ),
            pinned,
        )


def draw(known: Known, rng: random.Random) -> Request:
    """One request at random; most are of one text or one image, as of people who search."""
    kind = rng.choices([*KINDS], [*KINDS.values()])[0]
    asked = {"1 image": [known.image], MIXED: [known.text, known.image] * 4, VECTORS: [known.text] * 16}
    chosen = [(side, rng.randrange(len(side.items))) for side in asked.get(kind, [known.text])]
    plain = np.stack([side.plain[row] for side, row in chosen])
    aims = {"1 image": "text"}  # an index of images is assumed otherwise, in which images stay plain
    moves = [side is known.text or kind in aims for side, _ in chosen]
    refined = np.stack(
        [(side.refined if moved else side.plain)[row] for (side, row), moved in zip(chosen, moves, strict=True)]
    )
    if kind == VECTORS:
        return Request(kind, "/v1/refine", {"vectors": plain.tolist(), "modality": "text"}, refined, plain)
    items = [side.items[row] for side, row in chosen]
    body: dict[str, Any] = {"input": items, "encoding_format": "base64", "refine": kind != PLAIN}
    if kind == FILTERED:
        body["reco"] = {"where": WHERE}
    elif kind in aims:
        body["reco"] = {"target": aims[kind]}
    return Request(kind, "/v1/embeddings", body, plain if kind == PLAIN else refined, plain)
