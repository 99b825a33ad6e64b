"""Each request as a value: its body, and how to read the answer. No network access here."""

from __future__ import annotations

import base64
import io
import json
import operator
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

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
from ..values import check_choice, check_items, each_pair, show

T = TypeVar("T")
_URL_CHARS = 8_000
_PNG_MODES = frozenset({"1", "L", "LA", "I;16", "P", "RGB", "RGBA"})
"""Modes that PNG stores without loss; others are sent as TIFF."""
_INPUT_TYPES = {role: word for word, role in ROLE_OF.items()}


@dataclass(frozen=True, repr=False)
class Refined(ToldShort):
    """Refined vectors, with an explanation on request.

    Attributes:
        vectors: (B, D) float32, unit-norm.
        moved: (B,) cosine distance from the frozen vector.
        degraded: why vectors are frozen although refinement was on, as the service says or as this client found; None
            if nothing failed.
        frozen: (B, D) before refinement; None without an explanation.
        used: per row, the pairs that were used, nearest first; likewise.
        why: per row, why it moved as far as it did, None without a gate; likewise.
        coverage: what the memory knows of them; None where it was not searched.
        plain: per row, why it was to be refined and stays plain, for people; empty where it moved, or was not to be.
        scale: (B, 2) of queries, as :attr:`reco_plugin.types.Refinement.scale`; None where the service says none.
        presence: (B,) of queries, as :attr:`reco_plugin.types.Refinement.presence`; likewise.
        word_ids: per row, the ids of the pairs that were found by words; empty where none was.
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
        """(B,) whether a vector moved."""
        return self.moved > UNMOVED

    def plain_scores(self, scores: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """As :meth:`reco_plugin.types.Refinement.plain_scores`."""
        return to_plain_scores(scores, self.scale)

    def refined_scores(self, scores: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """As :meth:`reco_plugin.types.Refinement.refined_scores`."""
        return to_refined_scores(scores, self.scale, len(self.vectors))

    @classmethod
    def unmoved(cls, frozen: Vectors, reason: Away, *, explain: bool = False) -> Refined:
        """Frozen vectors (B, D) in place of an answer of the service."""
        rows = len(frozen)
        explained: dict[str, Any] = {"frozen": frozen.copy(), "used": ((),) * rows, "why": (None,) * rows}
        zeros = np.zeros(rows, np.float32)
        return cls(frozen, zeros, reason, plain=(reason,) * rows, **(explained if explain else {}))

    @classmethod
    def join(cls, parts: Sequence[Refined]) -> Refined:
        """Answers to the parts of one call as one; degraded if any part is."""
        frozen = [part.frozen for part in parts if part.frozen is not None]
        used = [part.used for part in parts if part.used is not None]
        why = [part.why for part in parts if part.why is not None]
        coverage = [part.coverage for part in parts if part.coverage is not None]
        presences = [part.presence for part in parts if part.presence is not None]
        moved = np.concatenate([part.moved for part in parts])
        return cls(
            np.concatenate([part.vectors for part in parts]),
            moved,
            next((part.degraded for part in parts if part.degraded), None),
            np.concatenate(frozen) if frozen else None,
            tuple(row for rows in used for row in rows) if used else None,
            tuple(row for rows in why for row in rows) if why else None,
            Coverage.join(coverage) if coverage else None,
            tuple(words for part in parts for words in part.plain),
            join_scales([one for part in parts for one in _by_row(part)], moved),
            np.concatenate(presences) if len(presences) == len(parts) else None,
            tuple(ids for part in parts for ids in part.word_ids),
        )

    def told(self, headers: Mapping[str, str]) -> Refined:
        """The same with what the answer's headers tell."""
        degraded: Any = self.degraded or headers.get("x-reco-degraded")
        return replace(self, degraded=degraded)


def _by_row(part: Refined) -> Sequence[npt.NDArray[np.float32] | None]:
    return [None] * len(part.vectors) if part.scale is None else list(part.scale)


class ServedHow(RefineHow, total=False):
    """Keywords of a refinement by a service; ``exclude`` is one collection for all."""

    exclude: Collection[str] | None


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request."""

    method: str
    path: str  # below the service's URL
    read: Callable[[Any], T]  # makes the result from the answer's JSON
    body: Mapping[str, Any] | None = None
    params: Sequence[tuple[str, str]] = ()  # of the query string
    admin: bool = False  # whether it needs the admin key
    told: Callable[[T, Mapping[str, str]], T] = lambda made, _: made  # adds what the answer's headers tell
    start: int = 0  # where its items begin among those of the caller


def embed(
    items: Sequence[ImageInput] | Sequence[str],
    modality: Modality,
    role: Role,
    refine: bool | None,
    size: int,
    options: ServedHow,
) -> list[Call[Refined]]:
    """``POST /v1/embeddings`` to vectors (B, D), in parts.

    Raises:
        InputError: no items, or a single one instead of a list.
        ImageError: a file that cannot be read.
    """
    input_type = _input_type(role)
    fields = {
        "input_type": input_type,
        "encoding_format": "base64",
        "reco": _how(options),
        **({} if refine is None else {"refine": refine}),
    }
    return [
        Call(
            "POST",
            "/v1/embeddings",
            _parse_embedded,
            {"input": [_item(one, modality) for one in part], **fields},
            told=Refined.told,
            start=start,
        )
        for start, part in _parts(items, f"{modality}s", size if refine is False else _size(role, size))
    ]


def refine(
    vectors: npt.ArrayLike, modality: Modality, role: Role, size: int, *, explain: bool, options: ServedHow
) -> list[Call[Refined]]:
    """``POST /v1/refine`` of vectors (B, D), in parts.

    Raises:
        VectorError: NaN or infinity.
    """
    rows = _finite(vectors)
    how = {"modality": modality, "input_type": _input_type(role), "explain": explain, **_how(options)}
    return [
        Call(
            "POST",
            "/v1/refine",
            _parse_refined,
            {"vectors": part, **how},
            told=Refined.told,
            start=start,
        )
        for start, part in _parts(rows.tolist(), "vectors", _size(role, size))
    ]


def explain(
    items: Sequence[ImageInput] | Sequence[str], modality: Modality, role: Role, size: int, options: ServedHow
) -> list[Call[Refined]]:
    """``POST /v1/explain``, in parts; errors as in :func:`embed`."""
    how = {"input_type": _input_type(role), **_how(options)}
    return [
        Call(
            "POST", "/v1/explain", _parse_refined, {"input": [_item(one, modality) for one in part], **how}, start=start
        )
        for start, part in _parts(items, f"{modality}s", _size(role, size))
    ]


def match(
    items: Sequence[ImageInput] | Sequence[str],
    results: Sequence[Sequence[float]],
    modality: Modality,
    fields: Mapping[str, Any],
) -> Call[list[dict[str, Any]]]:
    """``POST /v1/match`` of queries and the cosines of their results; errors as in :func:`embed`."""
    sent = {
        "input": [_item(one, modality) for one in check_items(items, f"{modality}s")],
        "results": [[{"score": float(score)} for score in one] for one in results],
    }
    return Call("POST", "/v1/match", operator.itemgetter("data"), sent | given_options(fields))


def add_pairs(pairs: Iterable[Pair | tuple[Any, ...]], size: int) -> Iterator[Call[int]]:
    """``POST /v1/memory/pairs``, in parts that are made one at a time."""
    rows_of = map(_pair, each_pair(pairs))
    while rows := list(islice(rows_of, size)):
        yield Call("POST", "/v1/memory/pairs", operator.itemgetter("stored"), {"pairs": rows}, admin=True)


def remove_pairs(ids: Sequence[str], size: int) -> list[Call[int]]:
    """``DELETE /v1/memory/pairs``, in parts that a URL can hold; without ids, nothing is sent."""
    names = check_items(list(ids) if isinstance(ids, Set | Iterator) else ids, "ids")  # in any order
    parts, read = ids_in_parts(names, size), operator.itemgetter("removed")
    return [
        Call("DELETE", "/v1/memory/pairs", read, params=[("id", one) for one in part], admin=True) for part in parts
    ]


def ids_in_parts(ids: Iterable[str], most: int) -> Iterator[list[str]]:
    """Ids in parts that a URL can hold, of so many at most."""
    part, size = list[str](), 0
    for one in ids:
        added = 3 * len(one.encode()) + 4  # percent-encoded, at worst
        if part and (size + added > _URL_CHARS or len(part) >= most):
            yield part
            part, size = [], 0
        part.append(one)
        size += added
    if part:
        yield part


def _input_type(role: Role) -> InputType:
    check_choice("role", role, tuple(_INPUT_TYPES))
    return _INPUT_TYPES[role]


def _size(role: Role, size: int) -> int:
    """Items per request; refined candidates go in one request, since they are refined as a set."""
    return size if role == "query" else sys.maxsize


def _parts(items: Sequence[T], what: str, size: int) -> list[tuple[int, Sequence[T]]]:
    """Items in parts, each with the position where it begins.

    Raises:
        InputError: no items, or a single one instead of a list.
    """
    items = check_items(items, what)
    if len(items) == 0:
        raise InputError("nothing to send: the batch is empty")
    return [(start, items[start : start + size]) for start in range(0, len(items), size)]


def to_json(body: Mapping[str, Any]) -> bytes:
    """The body of a request.

    Raises:
        InputError: it holds what JSON cannot carry, as a date, a number of NumPy, NaN or half of a surrogate pair.
    """
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"what was given cannot be sent as JSON: {error}") from None


def _how(options: ServedHow) -> dict[str, Any]:
    """The options that were given, as fields of a request; ids as a list."""
    given = given_options(options)
    if "exclude" not in given:
        return given
    exclude: Any = given["exclude"]
    if isinstance(exclude, str | bytes) or not isinstance(exclude, Iterable):
        raise InputError(f"exclude must be a collection of ids, got the single id {show(exclude)}: put it in a list")
    return given | {"exclude": sorted(exclude, key=str)}


def _item(value: ImageInput, modality: Modality) -> dict[str, str]:
    if modality == "image":
        return {"image": _image(value)}
    if not isinstance(value, str):
        raise InputError(f"a text must be a str, got {type(value).__name__}: {value!r:.40}")
    return {"text": value}


def _finite(vectors: npt.ArrayLike) -> npt.NDArray[np.float32]:
    try:
        rows = np.asarray(vectors, np.float32)
    except (TypeError, ValueError, RuntimeError) as error:  # torch raises the last where a gradient is needed
        raise VectorError(f"vectors are not an array of numbers of shape (B, D): {error}") from None
    if not np.isfinite(rows).all():
        raise VectorError("vectors hold NaN or infinity, which JSON cannot carry")
    return rows


def _pair(pair: Pair) -> dict[str, Any]:
    if not isinstance(pair.payload, Mapping):
        raise InputError(f"the payload of {show(pair.id)} must be a mapping, found {type(pair.payload).__name__}")
    row: dict[str, Any] = {"id": pair.id, "payload": dict(pair.payload)}
    for name, value in (("image", pair.image), ("text", pair.text)):
        if isinstance(value, np.ndarray):
            row[f"{name}_vector"] = value.tolist()
        else:
            row[name] = _image(value) if name == "image" else value
    return row


def _image(image: ImageInput) -> str:
    """An image as base64; files and bytes as they are, PIL images without loss."""
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
    except (OSError, ValueError) as error:  # the latter of a closed image, or of a path that no file can have
        said = getattr(error, "strerror", None) or error
        raise ImageError(f"image {show(str(image))} cannot be read: {said}") from error
    return base64.b64encode(data).decode()


def _parse_embedded(answer: Any) -> Refined:
    rows = sorted(answer["data"], key=lambda row: int(row["index"]))
    moved = np.array([row.get("moved", np.nan) for row in rows], np.float32)
    vectors = np.stack([_vector(row["embedding"]) for row in rows])
    return Refined(
        vectors,
        moved,
        scale=join_scales([row.get("scale") for row in rows], moved),
        presence=_per_row(rows, "presence"),
        word_ids=_word_ids(rows),
    )


def _vector(sent: Any) -> npt.NDArray[np.float32]:
    if isinstance(sent, str):  # base64 of little-endian float32, as in OpenAI's API
        return np.frombuffer(base64.b64decode(sent), "<f4").astype(np.float32)
    return np.asarray(sent, np.float32)


def _parse_refined(answer: Any) -> Refined:
    rows = sorted(answer["data"], key=lambda row: int(row["index"]))
    explained = all("used" in row for row in rows)
    moved = np.array([row.get("moved", np.nan) for row in rows], np.float32)
    return Refined(
        vectors=np.array([row["embedding"] for row in rows], np.float32),
        moved=moved,
        degraded=answer.get("degraded"),
        frozen=np.array([row["frozen"] for row in rows], np.float32) if explained else None,
        used=tuple(tuple(Used(**pair) for pair in row["used"]) for row in rows) if explained else None,
        why=tuple(Why(**row["why"]) if row.get("why") else None for row in rows) if explained else None,
        coverage=next((_coverage(one) for one in answer.get("coverage", {}).values()), None),
        plain=tuple(row.get("plain") or "" for row in rows),
        scale=join_scales([row.get("scale") for row in rows], moved),
        presence=_per_row(rows, "presence"),
        word_ids=_word_ids(rows),
    )


def _word_ids(rows: list[Any]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(row.get("word_ids", ())) for row in rows)


def _per_row(rows: list[Any], name: str) -> npt.NDArray[np.float32] | None:
    """What the service says of each row; None where it says nothing of one."""
    said = [row.get(name) for row in rows]
    return None if any(one is None for one in said) else np.array(said, np.float32)


def _coverage(said: Any) -> Coverage:
    return Coverage(**said | {"covered": tuple(said["covered"])})
