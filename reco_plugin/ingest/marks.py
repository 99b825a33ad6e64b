"""What ingest writes into payloads for its own use."""

from __future__ import annotations

from typing import Any

from ..types import Payload

ROW = "reco_row"
"""Digest of the row that a pair was made of."""
SOURCE = "reco_source"
"""Name of the source that brought it, by `build` or `sync`."""
CAPTIONS = "captions"
"""All captions of a pair that near-duplicates were merged into, its own first."""


def marked(payload: Payload, digest: str, source: str | None) -> dict[str, Any]:
    """A payload with the marks of its row."""
    return {**payload, ROW: digest, **({SOURCE: source} if source is not None else {})}


def unmarked(payload: Payload) -> dict[str, Any]:
    """A payload without marks, which a source may hold that was exported from a memory."""
    return {key: value for key, value in payload.items() if key not in (ROW, SOURCE)}
