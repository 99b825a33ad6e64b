"""What a memory learned, in two parts: figures for its header, and what is large, which lies beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ..errors import InputError

BESIDE = "beside"
"""Key of where the large part is: digest and bytes."""
_LARGE = 1_024
"""Characters of JSON; a larger value lies beside."""


def split_learned(learned: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    """The part for the header, and what lies beside; no bytes where nothing is large.

    >>> small, large = split_learned({"pairs": 7, "blob": "A" * 2000})
    >>> small["pairs"], small["beside"]["bytes"], len(large)
    (7, 2011, 2011)

    Raises:
        InputError: JSON cannot hold it.
    """
    try:
        sizes = {name: len(json.dumps(value, allow_nan=False)) for name, value in learned.items() if name != BESIDE}
    except (TypeError, ValueError) as error:
        raise InputError(f"calibration must hold JSON values only: {error}") from error
    large = {name: learned[name] for name, size in sizes.items() if size > _LARGE}
    if not large:
        return dict(learned), b""
    data = json.dumps(large, separators=(",", ":"), sort_keys=True).encode()
    small = {name: value for name, value in learned.items() if name not in large}
    return {**small, BESIDE: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}}, data


def digest_of(small: Mapping[str, Any]) -> str:
    """Digest of what lies beside; empty where nothing does."""
    beside = small.get(BESIDE)
    return str(beside.get("sha256") or "") if isinstance(beside, Mapping) else ""


def join_learned(small: Mapping[str, Any], data: bytes | str | None) -> dict[str, Any]:
    """Both parts together; the small one as it is, with its digest, where the other is missing or another one."""
    return join_parts(small, read_large(digest_of(small), data))


def read_large(digest: str, data: bytes | str | None) -> dict[str, Any] | None:
    """What lies beside, read; None where it is missing, or not that of the digest."""
    raw = data.encode() if isinstance(data, str) else data
    if not digest or raw is None or hashlib.sha256(raw).hexdigest() != digest:
        return None
    large: dict[str, Any] = json.loads(raw)
    return large


def join_parts(small: Mapping[str, Any], large: Mapping[str, Any] | None) -> dict[str, Any]:
    """See :func:`join_learned`, of what is read already."""
    if large is None:
        return dict(small)
    return {name: value for name, value in small.items() if name != BESIDE} | dict(large)
