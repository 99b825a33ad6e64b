"""What people said of a memory's answers, as the memory stores it: a record each, unread."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeAlias

FORMAT = 1
"""Of a record: its words, and both vectors as base64 of float16."""
WORDS = ("id", "modality", "pair", "right", "by", "at")
SaidRecord: TypeAlias = Mapping[str, Any]


def change_said(
    said: Mapping[str, SaidRecord], added: Iterable[SaidRecord], gone: Collection[str]
) -> dict[str, SaidRecord]:
    """Records by id, oldest first, after some were added and others are gone; one that is added again is replaced.

    >>> list(change_said({"a": {"id": "a", "n": 5}, "b": {"id": "b", "n": 7}}, [{"id": "c", "n": 6}], ["a"]))
    ['c', 'b']
    """
    left = {name: one for name, one in said.items() if name not in set(gone)}
    left |= {str(one["id"]): one for one in added}
    return dict(sorted(left.items(), key=lambda item: _when(item[1])))


def _when(one: SaidRecord) -> tuple[str, int, str]:
    number = one.get("n")
    return str(one.get("at") or ""), number if isinstance(number, int) else 0, str(one["id"])
