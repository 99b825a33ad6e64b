"""What callers hand in, checked in one place for all kinds of memory."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError, VectorError
from ..types import MODALITIES, Filter, Modality, Payload, Records, Vectors
from .filters import Condition, parse_filter

USER_ID = "_reco_id"
"""Payload key that keeps the user's id."""
NORM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Search:
    """Checked arguments of a search.

    Attributes:
        vectors: (B, D) queries.
        exclude: per query, the ids it must not find.
        conditions: what the payload must fulfil.
    """

    vectors: Vectors
    exclude: list[list[str]]
    conditions: tuple[Condition, ...]


def check_vectors(vectors: npt.ArrayLike, dimension: int, what: str) -> Vectors:
    """A fresh (N, D) float32 copy of unit-norm vectors, normalised to the last digit.

    Raises:
        VectorError: wrong shape, not finite, or a norm further than 1e-3 from 1.
    """
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            array = np.asarray(vectors, np.float32)
    except (TypeError, ValueError) as error:
        raise VectorError(f"{what} must be an array of shape (N, {dimension}): {error}") from error
    if array.ndim != 2 or array.shape[1] != dimension:
        raise VectorError(f"{what}: expected shape (N, {dimension}), found {array.shape}")
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.linalg.norm(array, axis=1)
    if not np.isfinite(norms).all():
        raise VectorError(f"{what}: row {int(np.argmin(np.isfinite(norms)))} holds NaN or infinity")
    if (wrong := np.flatnonzero(np.abs(norms - 1) > NORM_TOLERANCE)).size:
        first = int(wrong[0])
        raise VectorError(f"{what}: row {first} has norm {norms[first]:.4g}, expected 1: divide vectors by their norm")
    return np.asarray(array / norms[:, None], np.float32)


def check_records(records: Records, dimension: int) -> Records:
    """Records with the vectors normalised and payloads copied as JSON values.

    Raises:
        InputError: columns of unequal length, an id that is empty or comes twice, a payload that JSON cannot hold.
        VectorError: see :func:`check_vectors`.
    """
    ids = check_ids(records.ids, "records.ids")
    lengths = {len(ids), len(records.image), len(records.text), len(records.payloads)}
    if len(lengths) > 1:
        raise InputError(
            f"records need columns of one length, found {len(ids)} ids, {len(records.image)} image vectors, "
            f"{len(records.text)} text vectors, {len(records.payloads)} payloads"
        )
    if twice := [name for name, times in Counter(ids).items() if times > 1]:
        raise InputError(f"{len(twice)} ids come more than once in the same call: {', '.join(map(repr, twice[:3]))}")
    if not ids:
        nothing = np.zeros((0, dimension), np.float32)
        return Records([], nothing, nothing, [])
    image, text = (check_vectors(records.side(m), dimension, f"{m} vectors") for m in MODALITIES)
    return Records(ids, image, text, [check_payload(*row) for row in zip(ids, records.payloads, strict=True)])


def check_ids(ids: Collection[str], what: str) -> list[str]:
    """Ids as a list.

    Raises:
        InputError: a bare str instead of a collection, an id that is not text, empty, or not valid Unicode.
    """
    if isinstance(ids, (str, bytes)):
        raise InputError(f"{what}: expected a collection of ids, found the single value {ids!r}: put it in a list")
    for name in ids:
        if not isinstance(name, str) or not name or not _encodes(name):
            raise InputError(f"{what}: an id is any text that is not empty, found {name!r}")
    return list(ids)


def check_payload(user_id: str, payload: Payload) -> dict[str, Any]:
    """A deep copy of a payload, made of JSON values only (a tuple becomes a list)."""
    if not isinstance(payload, Mapping):
        raise InputError(f"the payload of {user_id!r} must be a mapping, found {type(payload).__name__}")
    if USER_ID in payload:
        raise InputError(f"the payload of {user_id!r} uses the key {USER_ID!r}, which is reserved: rename it")
    return dict(_json(dict(payload), user_id))


def check_search(
    vectors: Vectors,
    dimension: int,
    *,
    by: Modality,
    read: Modality,
    k: int,
    exclude: Sequence[Collection[str]] | None,
    where: Filter | None,
) -> Search:
    """The arguments of a search, checked and ready for a backend.

    Raises:
        InputError: unknown modality, k below 1, ``exclude`` not of one entry per query, a filter that means nothing.
        VectorError: see :func:`check_vectors`.
    """
    for name, modality in (("by", by), ("read", read)):
        if modality not in MODALITIES:
            raise InputError(f"{name}: expected one of {', '.join(MODALITIES)}, found {modality!r}")
    check_positive(k, "k")
    if where and USER_ID in where:
        raise InputError(f"filter: {USER_ID!r} is reserved; read pairs by id with scroll(ids=...)")
    checked = check_vectors(vectors, dimension, "query vectors")
    if exclude is None:
        exclude = [()] * len(checked)
    if len(exclude) != len(checked):
        raise InputError(f"exclude: expected one collection per query, {len(checked)}, found {len(exclude)}")
    return Search(checked, [check_ids(ids, "exclude") for ids in exclude], parse_filter(where))


def check_positive(number: int, what: str) -> int:
    """The number, when it is an integer of at least 1."""
    if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or number < 1:
        raise InputError(f"{what}: expected a whole number of at least 1, found {number!r}")
    return int(number)


def chunks(ids: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """The ids without repetitions, in order, at most ``size`` at a time."""
    unique = list(dict.fromkeys(ids))
    return (unique[start : start + size] for start in range(0, len(unique), size))


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _json(value: Any, user_id: str) -> Any:
    """Copy JSON values."""
    match value:
        case None | bool():
            return value
        case str() if _encodes(value):
            return value
        case int() if -(2**63) <= value < 2**63:
            return value
        case float() if math.isfinite(value):
            return value
        case list() | tuple():
            return [_json(item, user_id) for item in value]
        case dict() if all(isinstance(key, str) for key in value):
            return {_json(key, user_id): _json(item, user_id) for key, item in value.items()}
    raise InputError(f"the payload of {user_id!r} holds {value!r}, which is not JSON (finite, 64-bit, valid Unicode)")
