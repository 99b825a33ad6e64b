"""What people said of a memory's answers, as the memory stores it: a record each, unread."""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

FORMAT = 1
"""Of a record: its words, and both vectors as base64 of float16."""
UNREAD = "unread"
"""Key of what cannot be read, in a list for others."""
DAMAGED = "damaged"
"""Id in place of what cannot be told apart any more."""
WORDS = ("id", "modality", "pair", "right", "by", "at")
SaidRecord: TypeAlias = Mapping[str, Any]
_FLOAT16 = 2  # bytes


def change_said(
    said: Mapping[str, SaidRecord], added: Iterable[SaidRecord], gone: Collection[str]
) -> dict[str, SaidRecord]:
    """Records by id, oldest first, after some were added and others are gone; one that is added again is replaced.

    >>> list(change_said({"a": {"id": "a", "n": 5}, "b": {"id": "b", "n": 7}}, [{"id": "c", "n": 6}], ["a"]))
    ['c', 'b']
    """
    left = dict(said)
    for name in gone:
        left.pop(name, None)
    last = _when(left[next(reversed(left))]) if left else ("", 0, "")
    ordered = True
    for one in sorted(added, key=_when):
        ordered = ordered and _when(one) >= last and one["id"] not in left
        left[str(one["id"])] = one
    return left if ordered else dict(sorted(left.items(), key=lambda item: _when(item[1])))


def unpack_said(packed: Mapping[str, Any], dimension: int) -> list[SaidRecord]:
    """The records of a list with one block of vectors: of an export, a service, or a header of an older version.

    What is damaged or of another format becomes one record that says so where it is read.
    """
    if not packed:
        return []
    left = packed.get(UNREAD) or []
    return [*_unpack(packed, dimension), *[one for one in left if isinstance(one, dict) and "id" in one]]


def _unpack(packed: Mapping[str, Any], dimension: int) -> list[SaidRecord]:
    try:
        if packed["format"] != FORMAT:
            return [{"id": DAMAGED, "format": packed["format"]}]
        words, raw = packed["opinions"], base64.b64decode(packed["vectors"], validate=True)
        size = _FLOAT16 * dimension
        if len(raw) != 2 * len(words) * size:
            raise ValueError(f"{len(raw)} bytes of vectors")
        parts = [base64.b64encode(raw[start : start + size]).decode() for start in range(0, len(raw), size)]
        return [
            {"format": FORMAT, **{name: one[name] for name in WORDS}, "n": row, "query": query, "answer": answer}
            for row, (one, query, answer) in enumerate(
                zip(words, parts[: len(words)], parts[len(words) :], strict=True)
            )
        ]
    except (KeyError, TypeError, ValueError) as error:
        return [{"id": DAMAGED, "format": -1, "why": repr(error)}]


def pack_said(records: Collection[SaidRecord], unread: Collection[SaidRecord] = ()) -> dict[str, Any]:
    """Records as a list with one block of vectors, see :func:`unpack_said`; empty where there are none.

    Args:
        records: of what people said, all of which can be read.
        unread: what takes the place of others.
    """
    blobs = [base64.b64decode(one[side]) for side in ("query", "answer") for one in records]
    words = [{name: one[name] for name in WORDS} for one in records]
    packed = {"format": FORMAT, "opinions": words, "vectors": base64.b64encode(b"".join(blobs)).decode()}
    return (packed if words or unread else {}) | ({UNREAD: list(unread)} if unread else {})


def in_parts(records: Sequence[SaidRecord], most: int) -> list[Sequence[SaidRecord]]:
    """Records in parts of so many bytes, or of one."""
    size = max((len(one.get("query", "")) + len(one.get("answer", "")) + 1_000 for one in records), default=1)
    step = max(1, most // size)
    return [records[start : start + step] for start in range(0, len(records), step)]


def _when(one: SaidRecord) -> tuple[str, int, str]:
    number = one.get("n")
    return str(one.get("at") or ""), number if isinstance(number, int) else 0, str(one["id"])
