"""Delete pairs that are gone from their source, once all its rows are written."""

from __future__ import annotations

from ..errors import DataError
from .known import SOURCE
from .write import Writer


def delete_gone(writer: Writer, source: str, max_share: float) -> None:
    """Delete the pairs that came from this source and are no longer in it.

    A pair whose row was rejected stays. Rejected rows without an id could be any pair's: then all stay.

    Raises:
        DataError: more than ``max_share`` of the source's pairs would be deleted; none is.
    """
    ours, gone = 0, list[str]()
    for id_, payload in writer.memory.store.payloads():
        if payload.get(SOURCE) == source:
            ours += 1
            if not writer.brought(id_):
                gone.append(id_)
    if not gone:
        return
    if writer.unnamed:
        writer.outcome.kept += len(gone)
        return
    if why := too_many(len(gone), ours, source, max_share):
        raise DataError(f"nothing was deleted, what is new or changed was written: {why}")
    writer.outcome.deleted += writer.memory.remove(gone)


def delete_others(writer: Writer) -> None:
    """Delete every pair that is not a good row of this source, whatever its source."""
    gone = [id_ for id_, _ in writer.memory.store.payloads() if not writer.brought(id_, good=True)]
    if gone:
        writer.outcome.deleted += writer.memory.remove(gone)


def too_many(gone: int, ours: int, source: str | None, max_share: float) -> str | None:
    """Why so many pairs of a source must not be deleted; None if they may."""
    if gone <= max_share * ours:
        return None
    return (
        f"{gone:,} of the {ours:,} pairs that {source!r} brought are gone from it, more than the allowed share of "
        f"{max_share:g}. To delete them, give --max-delete {min(1.0, gone / ours + 0.005):.2f}; if not, is the source "
        "complete?"
    )
