"""The note in a memory that it is being learned from: where it stays, the process that began died meanwhile."""

from __future__ import annotations

from ..memory import Header

BEGUN = set[str]()
"""Ids of the notes of this process."""


def unfinished(header: Header) -> str:
    """Say that another process began to learn and has not ended, or died; empty where none did.

    A large memory is not learned from again by itself then: it may die again.
    """
    note = header.learning
    if not note or note.get("id") in BEGUN:
        return ""
    pairs = note.get("pairs")
    of = f" from {pairs:,} pairs" if isinstance(pairs, int) else ""
    return (
        f"calibration{of} began on {note.get('host', 'some host')} at {note.get('since', 'some time')} and has not "
        "ended. If it does not run any more, it died, as where memory (RAM) runs out: run "
        "`reco memory build --relearn`, best on a machine with more of it"
    )
