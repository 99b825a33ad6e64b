"""Checks of the callers' input, the same for all kinds of memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from ..types import MODALITIES, Payload, Records, Search, Vectors
from ..values import (
    CAPTION_LENGTH,
    EXCLUSIONS,
    EXCLUSIONS_AT_ONCE,
    NUMBERS_READ,
    PAYLOAD_LEVELS,
    ROW,
    SOURCE,
    check_k,
    check_vectors,
    is_scalar,
    is_unicode,
    show,
)
from .filters import RESERVED, Condition, parse_filter

SERVERS = ("http://", "https://", "grpc://", "grpcs://")
"""How the URL of a Qdrant server begins."""
NO_SERVER = (
    "the URL of a Qdrant server looks like http://host:6333 or grpc://host:6334?collection=shop (https, grpcs with "
    "TLS), without user or key in it"
)
"""Of a URL of another form, which is not shown: it may hold a key."""


@dataclass(frozen=True)
class CheckedSearch:
    """A search with valid arguments."""

    vectors: Vectors  # (B, D) queries
    k: int  # neighbours per query
    exclude: Sequence[Sequence[str]]  # per query, the ids it must not find; queries may share one list
    conditions: tuple[Condition, ...]  # the payload must fulfil all
    within: tuple[Condition, ...] = ()  # those of them that limit what the caller may see


def check_records(records: Records, dimension: int) -> Records:
    """Records with the vectors (N, D) normalised and payloads copied as JSON values.

    Raises:
        InputError: columns of unequal length, an id that is empty or repeated, a payload that cannot be stored.
        VectorError: see :func:`~reco_plugin.values.check_vectors`.
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
        return Records.join([], dimension)
    image, text = (check_vectors(records.side(m), dimension, f"{m} vectors") for m in MODALITIES)
    return Records(ids, image, text, [check_payload(*row) for row in zip(ids, records.payloads, strict=True)])


def check_ids(ids: Collection[str], what: str) -> list[str]:
    """Ids as a list.

    Raises:
        InputError: a bare str instead of a collection, an id that is not text, empty, or not valid Unicode.
    """
    if isinstance(ids, (str, bytes)) or not isinstance(ids, Iterable):
        raise InputError(f"{what}: expected a collection of ids, found the single value {show(ids)}: put it in a list")
    names = list(ids)
    with suppress(TypeError):  # all at once, in a sixth of the time; whatever is not right is looked for below
        if is_unicode("".join(names)) and all(names):
            return names
    wrong = next(name for name in names if not isinstance(name, str) or not name or not is_unicode(name))
    raise InputError(f"{what}: an id is any Unicode text that is not empty, found {show(wrong)}")


def check_payload(user_id: str, payload: Payload) -> dict[str, Any]:
    """A deep copy of a payload, made of JSON values only (a tuple becomes a list).

    Raises:
        InputError: it cannot be stored.
    """
    if not isinstance(payload, Mapping):
        raise InputError(f"the payload of {show(user_id)} must be a mapping, found {type(payload).__name__}")
    if taken := [key for key in RESERVED if key in payload]:
        raise InputError(f"the payload of {show(user_id)} uses the key {taken[0]!r}, which is reserved: rename it")
    try:
        return dict(_json(dict(payload), 1))
    except ValueError as unfit:
        raise InputError(f"the payload of {show(user_id)} {unfit}") from None


def _json(value: Any, level: int) -> Any:
    """Copy JSON values; ``level`` of the payload itself is 1."""
    if value is None or is_scalar(value):
        return value
    if isinstance(value, (list, tuple, dict)) and level > PAYLOAD_LEVELS:
        raise ValueError(f"is nested deeper than {PAYLOAD_LEVELS} levels: keep the inner part as a JSON text")
    if isinstance(value, (list, tuple)):
        return [_json(item, level + 1) for item in value]
    if isinstance(value, dict):
        if unfit := [key for key in value if not isinstance(key, str) or not is_unicode(key)]:
            raise ValueError(f"has the key {show(unfit[0])}: expected texts in Unicode")
        return {key: _json(item, level + 1) for key, item in value.items()}
    raise ValueError(f"holds {show(value)}: expected JSON values, finite, whole numbers of 64 bits, texts in Unicode")


def check_pair(user_id: str, text: Any, payload: Payload) -> dict[str, Any]:
    """Check a new pair, whoever brings it: a source, a program or an HTTP request; returns a copy of its payload.

    Args:
        user_id: its id.
        text: its caption; anything else than a text is a vector, or nothing, and is checked elsewhere.
        payload: without the marks of rows and sources, which only `build`, `sync` and the like write.

    Raises:
        InputError: an id, a caption or a payload that cannot be stored, or a mark in the payload.
    """
    check_ids([user_id], "id")
    if isinstance(text, str) and not text.strip():
        raise InputError("its caption is empty")
    if isinstance(text, str) and len(text) > CAPTION_LENGTH:
        raise InputError(f"its caption has {len(text):,} characters, more than {CAPTION_LENGTH:,}")
    checked = check_payload(user_id, payload)
    if marks := [key for key in (ROW, SOURCE) if key in checked]:
        raise InputError(
            f"the payload of {show(user_id)} has the key {marks[0]!r}, by which `reco memory sync` knows what a source "
            "brought: leave it out"
        )
    return checked


def check_search(search: Search, dimension: int) -> CheckedSearch:
    """A search, checked and ready for a backend.

    Raises:
        InputError: unknown modality, invalid k or filter, ``exclude`` without one entry per query, or more of
            anything than :mod:`..values` allows.
        VectorError: see :func:`~reco_plugin.values.check_vectors`.
    """
    if search.checked:
        return CheckedSearch(search.vectors, search.k, [()] * len(search.vectors), ())
    for name, modality in (("by", search.by), ("read", search.read)):
        if modality not in MODALITIES:
            raise InputError(f"{name}: expected one of {', '.join(MODALITIES)}, found {modality!r}")
    k = check_k(search.k)
    within = parse_filter(search.within)
    conditions = (*parse_filter(search.where), *within)
    checked = check_vectors(search.vectors, dimension, "query vectors", may_be_empty=True)
    if (numbers := len(checked) * k * dimension) > NUMBERS_READ:
        raise InputError(
            f"{len(checked):,} queries with k={k:,} would read {numbers * 4 / 2**30:.1f} GiB of vectors at once, at "
            f"most {NUMBERS_READ * 4 / 2**30:g}: ask with fewer queries at a time, or a smaller k"
        )
    return CheckedSearch(checked, k, _check_exclude(search.exclude, len(checked)), conditions, within)


def _check_exclude(exclude: Sequence[Collection[str]] | None, queries: int) -> Sequence[Sequence[str]]:
    if exclude is None:
        return [()] * queries
    if isinstance(exclude, (str, bytes)) or not isinstance(exclude, Iterable) or len(given := list(exclude)) != queries:
        raise InputError(f"exclude: expected one collection of ids per query, {queries}, found {show(exclude)}")
    each = {id(ids): ids for ids in given}  # queries may share one collection
    checked = {key: check_ids(ids, "exclude") for key, ids in each.items()}
    longest = max(map(len, checked.values()), default=0)
    total = sum(len(checked[id(ids)]) for ids in given)
    if longest > EXCLUSIONS or total > EXCLUSIONS_AT_ONCE:
        raise InputError(
            f"exclude: found {longest:,} ids for one query and {total:,} for all, at most {EXCLUSIONS:,} and "
            f"{EXCLUSIONS_AT_ONCE:,}: ask with fewer queries at a time, or tell such pairs by their payload (where)"
        )
    return [checked[id(ids)] for ids in given]


def check_positive(number: int, what: str) -> int:
    """The number, if it is an integer of at least 1; else InputError."""
    if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or number < 1:
        raise InputError(f"{what}: expected a whole number of at least 1, found {show(number)}")
    return int(number)


def chunks(ids: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """The ids without duplicates, in order, at most ``size`` at a time."""
    unique = list(dict.fromkeys(ids))
    return (unique[start : start + size] for start in range(0, len(unique), size))
