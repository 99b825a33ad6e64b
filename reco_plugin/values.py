"""What a single value from outside may be: every bound with its reason. What is beyond it is an InputError."""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np

from .errors import InputError

PAYLOAD_LEVELS = 64
"""Objects and lists inside one another in a payload. From 124 on, Qdrant Edge acknowledges a pair that it cannot read
from its log again. (A server's own bound by gRPC is about 30; such a write fails, and harms nothing.)"""
WHERE_KEYS = 16
"""Conditions of a filter. Each costs Edge 4 microseconds per pair, in which it holds Python's global lock."""
WHERE_TEXTS = 10_000
"""Texts that a filter lists, over all of its keys; they are looked up in a table, so many cost little."""
WHERE_NUMBERS = 1000
"""Numbers that a filter lists, over all of its keys. Qdrant looks up no number of which 1 and 1.0 are one: each is
compared, in a tree of bounds."""
EXCLUSIONS = 10_000
"""Ids that one query must not find."""
EXCLUSIONS_AT_ONCE = 1_000_000
"""Ids that all queries of one search must not find; a refinement of more searches in parts."""
NEIGHBOURS = 10_000
"""k: pairs that are read for one query."""
NUMBERS_READ = 2**28
"""Numbers in the vectors that one search reads, queries x k x D: 1 GiB."""

CONTEXT_LENGTH = 8_192
"""Tokens of a text that a model may say it reads, to which batches may be padded; no CLIP known to us reads more."""
IMAGE_SIDE = 2_048
"""Pixels of a side that a model may want its images in; a batch of 64 takes 800 MB."""
DIMENSIONS = 65_536
"""Numbers of a vector, D: Qdrant stores no longer ones."""


def is_unicode(text: str) -> bool:
    r"""Whether a text can be stored: one that holds half of a surrogate pair is no Unicode.

    >>> is_unicode("\U0001f600"), is_unicode("\ud83d")
    (True, False)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_k(k: Any) -> int:
    """The number of neighbours.

    Raises:
        InputError: not whole, below 1, or above :data:`NEIGHBOURS`.
    """
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 1 <= k <= NEIGHBOURS:
        raise InputError(f"k must be a whole number from 1 to {NEIGHBOURS:,}, got {shown(k)}")
    return int(k)


def check_choice(name: str, value: Any, known: Sequence[str]) -> None:
    """Refuse a word that is not known.

    Raises:
        InputError: naming what is.
    """
    if value not in known:
        raise InputError(f"{name} must be {' or '.join(map(repr, known))}, got {value!r}")


def nearest(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """The known names that look most like ``name``, the most alike first, whatever their case; [] when none does.

    >>> nearest("flower102", ["Flowers102", "Food101", "CIFAR10"])
    ['Flowers102']
    """
    folded = {item.casefold(): item for item in known}
    return [folded[match] for match in get_close_matches(name.casefold(), folded, n=most)]


def did_you_mean(name: str, known: Collection[str]) -> str:
    """The end of a message about an unknown name: what is nearest to it, or else the first few there are.

    >>> did_you_mean("wern", ["owl", "wren"]), did_you_mean("x", ["owl", "wren"])
    ("did you mean 'wren'?", "choose from 'owl', 'wren'")
    """
    if close := nearest(name, known):
        return f"did you mean {' or '.join(map(repr, close))}?"
    some = [repr(item) for item, _ in zip(known, range(5), strict=False)]
    return f"choose from {', '.join(some)}" + (f" and {len(known) - 5:,} more" if len(known) > 5 else "")


def shown(value: object) -> str:
    """A value for a message: short, and whatever it is.

    >>> shown("a" * 1000), shown(10**9999)
    ("'aaaaaaaaaaaaaaaaaaaaaaaaaaa...aaaaaaaaaaaaaaaaaaaaaaaaaaaa'", 'int')
    """
    try:
        return _SHORT.repr(value)
    except Exception:  # a whole number of thousands of digits, or an object whose own repr fails
        return type(value).__name__


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60
