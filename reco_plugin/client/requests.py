"""Values of the client as JSON, and answers of the service as values. No network access here."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..errors import WHAT_IMAGES_ARE, ImageError, InputError, VectorError
from ..fusion.explain import Why
from ..options import RefineHow, given_options
from ..types import (
    ROLE_OF,
    UNMOVED,
    Away,
    Coverage,
    Degraded,
    ImageInput,
    InputType,
    Modality,
    Pair,
    Role,
    ToldShort,
    Used,
    Vectors,
    join_scales,
    to_plain_scores,
    to_refined_scores,
)
from ..values import check_choice, check_items, show, unpack

_URL_CHARS = 8_000
_PNG_MODES = frozenset({"1", "L", "LA", "I;16", "P", "RGB", "RGBA"})
"""Modes that PNG stores without loss; the client sends others as TIFF."""
_INPUT_TYPES: Mapping[Role, InputType] = {role: input_type for input_type, role in ROLE_OF.items()}


@dataclass(frozen=True, repr=False)
class Refined(ToldShort):
    """Refined vectors, with an explanation on request.

    Attributes:
        vectors: (B, D) float32, unit-norm.
        moved: (B,) cosine distance from the frozen vector.
        degraded: why the service, or this client in its place, returned frozen vectors; None if nothing failed.
        frozen: (B, D) before refinement; None without an explanation.
        used: for each row, the pairs that the refinement used, nearest first; None without an explanation.
        why: for each row, why it moved as far as it did, or None without a gate; None without an explanation.
        coverage: what the memory holds of the queries; None if the service did not search it.
        plain: for each row, why it stayed plain although refinement was on. Empty if it moved, or was not to be
            refined; always empty from :meth:`.Client.embed`.
        scale: (B, 2) for queries, as :attr:`reco_plugin.types.Refinement.scale`; None if the service sent none.
        presence: (B,) for queries, as :attr:`reco_plugin.types.Refinement.presence`; None if the service sent none.
        word_ids: for each row, the ids of the pairs whose captions have the query's words.
    """

    vectors: Vectors
    moved: npt.NDArray[np.float32]
    degraded: Degraded | Away | None = None
    frozen: Vectors | None = None
    used: tuple[tuple[Used, ...], ...] | None = None
    why: tuple[Why | None, ...] | None = None
    coverage: Coverage | None = None
    plain: tuple[str, ...] = ()
    scale: npt.NDArray[np.float32] | None = None
    presence: npt.NDArray[np.float32] | None = None
    word_ids: tuple[tuple[str, ...], ...] = ()

    @property
    def refined(self) -> npt.NDArray[np.bool_]:
        """(B,) whether each vector moved."""
        return self.moved > UNMOVED

    def plain_scores(self, scores: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """As :meth:`reco_plugin.types.Refinement.plain_scores`."""
        return to_plain_scores(scores, self.scale)

    def refined_scores(self, scores: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """As :meth:`reco_plugin.types.Refinement.refined_scores`."""
        return to_refined_scores(scores, self.scale, len(self.vectors))

    @classmethod
    def unmoved(cls, frozen: Vectors, reason: Away, *, explain: bool = False) -> Refined:
        """Return frozen vectors (B, D) in place of the service's answer."""
        rows = len(frozen)
        explained: dict[str, Any] = {"frozen": frozen.copy(), "used": ((),) * rows, "why": (None,) * rows}
        zeros = np.zeros(rows, np.float32)
        return cls(frozen, zeros, reason, plain=(reason,) * rows, **(explained if explain else {}))

    @classmethod
    def join(cls, parts: Sequence[Refined]) -> Refined:
        """Join the answers to the parts of one call; degraded if any part is."""

        def rows(name: str) -> Any:
            values = [getattr(part, name) for part in parts]
            if any(value is None for value in values):
                return None
            return np.concatenate(values) if isinstance(values[0], np.ndarray) else tuple(chain(*values))

        moved = rows("moved")
        coverage = [part.coverage for part in parts if part.coverage is not None]
        scales = [part.scale if part.scale is not None else [None] * len(part.vectors) for part in parts]
        return cls(
            rows("vectors"),
            moved,
            next((part.degraded for part in parts if part.degraded), None),
            rows("frozen"),
            rows("used"),
            rows("why"),
            Coverage.join(coverage) if coverage else None,
            rows("plain"),
            join_scales(list(chain(*scales)), moved),
            rows("presence"),
            rows("word_ids"),
        )


class ServedOptions(RefineHow, total=False):
    """Options of a refinement by a service; ``exclude`` is one collection for all queries."""

    exclude: Collection[str] | None


def read_refined(answer: Any) -> Refined:
    """Read the answer of ``POST /v1/embeddings``, ``/v1/refine`` or ``/v1/explain``.

    Raises:
        KeyError, TypeError, ValueError: the JSON has another shape.
    """
    rows = sorted(answer["data"], key=lambda row: int(row["index"]))
    is_explained = all("used" in row for row in rows)
    moved = np.array([row.get("moved", np.nan) for row in rows], np.float32)
    presences = [row.get("presence") for row in rows]
    return Refined(
        vectors=np.stack([_vector(row["embedding"]) for row in rows]),
        moved=moved,
        degraded=answer.get("degraded"),
        frozen=np.array([row["frozen"] for row in rows], np.float32) if is_explained else None,
        used=tuple(tuple(Used(**pair) for pair in row["used"]) for row in rows) if is_explained else None,
        why=tuple(Why(**row["why"]) if row.get("why") else None for row in rows) if is_explained else None,
        coverage=next((_coverage(fields) for fields in answer.get("coverage", {}).values()), None),
        plain=tuple(row.get("plain") or "" for row in rows),
        scale=join_scales([row.get("scale") for row in rows], moved),
        presence=None if None in presences else np.array(presences, np.float32),
        word_ids=tuple(tuple(row.get("word_ids") or ()) for row in rows),
    )


def _vector(value: Any) -> npt.NDArray[np.float32]:
    return unpack(value, (-1,), "an embedding") if isinstance(value, str) else np.asarray(value, np.float32)


def _coverage(fields: Mapping[str, Any]) -> Coverage:
    return Coverage(**{**fields, "covered": tuple(fields["covered"])})


def input_type_of(role: Role) -> InputType:
    """Return the service's name of a role."""
    check_choice("role", role, tuple(_INPUT_TYPES))
    return _INPUT_TYPES[role]


def option_fields(options: ServedOptions) -> dict[str, Any]:
    """Return the options that are not None as fields of a request.

    Raises:
        InputError: ``exclude`` is a single id.
    """
    fields = given_options(options)
    if "exclude" not in fields:
        return fields
    exclude: Any = fields["exclude"]
    if isinstance(exclude, str | bytes) or not isinstance(exclude, Iterable):
        raise InputError(f"exclude must be a collection of ids, got the single id {show(exclude)}: put it in a list")
    return fields | {"exclude": sorted(exclude, key=str)}


def item_fields(items: Sequence[ImageInput] | Sequence[str], modality: Modality) -> list[dict[str, str]]:
    """Return texts or images as items of a request.

    Raises:
        InputError: a single item instead of a list, or a text that is not a ``str``.
        ImageError: a file that cannot be read.
    """
    items = check_items(items, f"{modality}s")
    if modality == "image":
        return [{"image": _image(item)} for item in items]
    for item in items:
        if not isinstance(item, str):
            raise InputError(f"a text must be a str, got {type(item).__name__}: {item!r:.40}")
    return [{"text": str(item)} for item in items]


def vector_rows(vectors: npt.ArrayLike) -> list[list[float]]:
    """Return vectors (B, D) as lists.

    Raises:
        InputError: a single number.
        VectorError: not numbers, NaN or infinity.
    """
    try:
        rows = np.asarray(vectors, np.float32)
    except (TypeError, ValueError, RuntimeError) as error:  # torch raises RuntimeError for a tensor with a gradient
        raise VectorError(f"vectors are not an array of numbers of shape (B, D): {error}") from None
    if not np.isfinite(rows).all():
        raise VectorError("vectors hold NaN or infinity, which JSON cannot carry")
    checked: list[list[float]] = check_items(rows.tolist(), "vectors")
    return checked


def pair_fields(pair: Pair) -> dict[str, Any]:
    """Return a pair as an item of ``POST /v1/memory/pairs``."""
    if not isinstance(pair.payload, Mapping):
        raise InputError(f"the payload of {show(pair.id)} must be a mapping, got {type(pair.payload).__name__}")
    fields: dict[str, Any] = {"id": pair.id, "payload": dict(pair.payload)}
    for name, value in (("image", pair.image), ("text", pair.text)):
        if isinstance(value, np.ndarray):
            fields[f"{name}_vector"] = value.tolist()
        else:
            fields[name] = _image(value) if name == "image" else value
    return fields


def _image(image: ImageInput) -> str:
    """Return an image as base64: the bytes of a file as they are, a PIL image without loss."""
    try:
        if isinstance(image, Image.Image):
            packed = io.BytesIO()
            image.save(packed, "PNG" if image.mode in _PNG_MODES else "TIFF")
            data = packed.getvalue()
        elif not isinstance(image, str | bytes | os.PathLike):
            raise ImageError(f"{type(image).__name__} is not an image", WHAT_IMAGES_ARE)
        else:
            data = image if isinstance(image, bytes) else Path(image).read_bytes()
    except ImageError:
        raise
    except (OSError, ValueError) as error:  # PIL raises ValueError for a closed image, Path for a null byte
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"image {show(str(image))} cannot be read: {reason}") from error
    return base64.b64encode(data).decode()


def ids_in_parts(ids: Iterable[str], limit: int) -> Iterator[list[str]]:
    """Split ids into lists that a URL can hold, each of at most ``limit`` ids."""
    part, size = list[str](), 0
    for id_ in ids:
        added = 3 * len(id_.encode()) + 4  # percent-encoded, at worst
        if part and (size + added > _URL_CHARS or len(part) >= limit):
            yield part
            part, size = [], 0
        part.append(id_)
        size += added
    if part:
        yield part


def to_json(body: Mapping[str, Any]) -> bytes:
    """Return the body of a request.

    Raises:
        InputError: a value that JSON cannot carry, such as a date, a NumPy number, NaN or half of a surrogate pair.
    """
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"the request cannot be sent as JSON: {error}") from None
