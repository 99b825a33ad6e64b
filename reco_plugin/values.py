"""The check of input vectors, and limits of single values, each with its reason; a larger value is an InputError."""

from __future__ import annotations

import base64
import math
import os
import re
import reprlib
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from difflib import get_close_matches
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import ConfigError, InputError, VectorError
from .types import Pair, Vectors

PAYLOAD_LEVELS = 64
"""Nesting of a payload. From 124 on, Qdrant Edge accepts a pair that it cannot read from its log again. (A server's own
limit by gRPC is about 30; there, the write fails without harm.)"""
WHERE_KEYS = 16
"""Conditions of a filter. Each costs Edge 4 microseconds per pair, in which it holds Python's global lock."""
WHERE_TEXTS = 10_000
"""Texts for one key; they are looked up in a table, so many cost little."""
WHERE_NUMBERS = 100
"""Numbers for one key. Qdrant has no table where 1 equals 1.0: each is compared with a pair's value."""
EXCLUSIONS = 10_000
"""Ids that one query must not find."""
EXCLUSIONS_AT_ONCE = 1_000_000
"""Ids that all queries of one search must not find; a refinement of more searches in parts."""
MAX_K = 10_000
"""k: pairs per query."""
NUMBERS_READ = 2**28
"""Numbers in the vectors of one search, queries x k x D: 1 GiB."""

KEY_LIKE = re.compile("key|token|secret|passw", re.IGNORECASE)
"""Names of what no address may hold, because others can read it."""
CONTEXT_LENGTH = 8_192
"""Context length of a model, to which batches may be padded; no CLIP known to us reads more."""
IMAGE_SIDE = 2_048
"""Side in pixels of a model's images; a batch of 64 takes 800 MB."""
DIMENSIONS = 65_536
"""D: Qdrant stores no longer vectors."""
NORM_TOLERANCE = 1e-2
"""Around norm 1. float16 vectors of real models are off by up to 1e-3; raw CLIP outputs have norms of 5 to 15."""

_WITH_OPTIONS = re.compile(r"(?P<name>.+?)\?(?P<options>\w+=[^&?]*(?:&\w+=[^&?]*)*)", re.DOTALL)

CAPTION_LENGTH = 100_000
"""Characters of a caption."""
ROW = "reco_row"
"""Payload key of the digest of a pair's row, by which a later run knows that the row is unchanged."""
SOURCE = "reco_source"
"""Payload key of the source that a pair came from, by `build` or `sync`."""
CONFIRMED = "reco_confirmed"
"""Payload key, True where a person decided that the caption is right: the pair is trusted."""


def strip_marks(payload: Mapping[str, Any]) -> dict[str, Any]:
    """A payload without :data:`ROW` and :data:`SOURCE`, since a source may be exported from a memory."""
    return {key: value for key, value in payload.items() if key not in (ROW, SOURCE)}


def is_unicode(text: str) -> bool:
    r"""Whether a text is valid Unicode and can be stored: half of a surrogate pair is not.

    >>> is_unicode("\U0001f600"), is_unicode("\ud83d")
    (True, False)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_scalar(value: Any) -> bool:
    """Whether a payload value can be stored and compared: a boolean, Unicode, a finite number of 64 bits."""
    match value:
        case bool():
            return True
        case str():
            return is_unicode(value)
        case int():
            return -(2**63) <= value < 2**63
        case float():
            return math.isfinite(value)
    return False


def _real(vectors: npt.ArrayLike) -> Vectors:
    """Numbers as float32, any shape; too large ones become infinite."""
    array = np.asarray(vectors)
    if array.dtype.kind in "cSUMm":  # numpy would drop the imaginary part, and read texts and times as numbers
        raise TypeError(f"found {array.dtype.name}")
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(array, np.float32)


def check_vectors(
    vectors: npt.ArrayLike, dimension: int, what: str = "vectors", *, may_be_empty: bool = False
) -> Vectors:
    """Return a copy of vectors (B, D) as float32 of exactly unit norm.

    Raises:
        InputError: no vectors, unless ``may_be_empty``.
        VectorError: wrong shape or dimension, complex numbers, NaN or infinity, or norms that are not 1.

    >>> check_vectors([[0.6, 0.8]], 2).tolist() == [[0.6000000238418579, 0.800000011920929]]
    True
    """
    try:
        array = _real(vectors)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:  # the last of torch, with a gradient
        raise VectorError(f"{what} are not an array of numbers of shape (B, {dimension}): {error}") from None
    if array.size == 0 and not may_be_empty:
        raise InputError(f"no {what}: the batch is empty")
    if array.ndim != 2 or array.shape[1] != dimension:
        raise VectorError(f"{what} must have shape (B, {dimension}), got {array.shape}: is it the same encoder?")
    if array.size == 0:
        return array.copy()
    with np.errstate(over="ignore"):  # a norm of finite numbers may overflow: that is not 1 either
        norms = np.linalg.norm(array, axis=1)
    if not np.isfinite(array).all():
        row = int(np.argmin(np.isfinite(array).all(axis=1)))
        raise VectorError(f"{what}[{row}] holds NaN or infinity")
    worst = int(np.argmax(np.abs(norms - 1)))
    if abs(norms[worst] - 1) > NORM_TOLERANCE:
        raise VectorError(
            f"{what}[{worst}] has norm {norms[worst]:.4g}, not 1: divide each vector by its L2 norm first"
        )
    exact = np.abs(norms - 1) <= 1e-6  # a unit-norm vector stays the same, bit by bit
    return np.where(exact[:, None], array, array / norms[:, None]).astype(np.float32)


def pack(vectors: Vectors) -> str:
    """Numbers of any shape as base64 of float32, little-endian, for JSON."""
    return base64.b64encode(np.ascontiguousarray(vectors, "<f4").tobytes()).decode()


def unpack(text: str, shape: tuple[int, ...], what: str) -> Vectors:
    """The same numbers again, of a shape; -1 for a side that follows from the others.

    Raises:
        InputError: no base64, or of another number of bytes.

    >>> unpack(pack(np.float32([[0.5, 1], [2, 3]])), (-1, 2), "vectors").tolist()
    [[0.5, 1.0], [2.0, 3.0]]
    """
    try:
        raw = base64.b64decode(text, validate=True)
        return np.frombuffer(raw, "<f4").astype(np.float32).reshape(shape)
    except ValueError as error:
        wanted = " x ".join("B" if side < 0 else str(side) for side in shape)
        raise InputError(f"{what} must be base64 of {wanted} float32, little-endian: {error}") from None


def check_k(k: Any) -> int:
    """The number of neighbours as an int.

    Raises:
        InputError: not an integer, below 1, or above :data:`MAX_K`.
    """
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 1 <= k <= MAX_K:
        raise InputError(f"k must be a whole number from 1 to {MAX_K:,}, got {show(k)}")
    return int(k)


def check_key(name: str, key: str | None) -> str | None:
    """A key without the line break with which files end; None without one.

    Raises:
        ConfigError: it is no text, or cannot be sent in a header; the key is not repeated.
    """
    if key is not None and not isinstance(key, str):
        raise ConfigError(f"{name} must be a text, got {type(key).__name__}")
    sent = (key or "").strip()
    if not (sent.isascii() and sent.isprintable()):
        raise ConfigError(f"{name} holds a line break, or what is not ASCII: it cannot be sent")
    return sent or None


def check_choice(name: str, value: Any, known: Sequence[str]) -> None:
    """Refuse an unknown value.

    Raises:
        InputError: naming the known ones.
    """
    if value not in known:
        raise InputError(f"{name} must be {' or '.join(map(repr, known))}, got {value!r}")


def check_flag(name: str, value: Any) -> bool:
    """A flag as a bool; 0 and 1 count, of NumPy, too.

    Raises:
        InputError: anything else: of ``"no"``, Python would make True.
    """
    if isinstance(value, (bool, int, float, np.bool_, np.number)) and value in (0, 1):
        return bool(value)
    raise InputError(f"{name} must be True or False, got {show(value)}")


def check_items(items: Any, what: str) -> Any:
    """Items of a call, as what has a length and is cut by position: a column of pandas is a list then.

    Raises:
        InputError: a single item, or what has no positions: a set, a mapping, an iterator, a table.
    """
    listed, kind = f"{what} must be a list of {what}", type(items).__name__
    if isinstance(items, (str, bytes, bytearray, os.PathLike)) or not (
        hasattr(items, "__iter__") or hasattr(items, "__getitem__")
    ):
        raise InputError(f"{listed}, got the single value {show(items)}: put it in a list")
    sides = 1 if isinstance(items, np.ndarray) and items.ndim else getattr(items, "ndim", 1)
    if (
        isinstance(items, (Mapping, Set))
        or sides != 1
        or not (hasattr(items, "__len__") and hasattr(items, "__getitem__"))
    ):
        raise InputError(f"{listed}, got a {kind}: make a list of it, in the order of answers; of a table, a column")
    if isinstance(items, deque) or hasattr(items, "iloc"):  # pandas may cut by labels
        return list(items)
    return items


def each_pair(pairs: Iterable[Pair | tuple[Any, ...]]) -> Iterator[Pair]:
    """Pairs that a program gives, one by one; tuples ``(id, image, text[, payload])`` are pairs, too.

    Raises:
        InputError: a single pair, at once, or something that is none.
    """
    if isinstance(pairs, Pair) or (isinstance(pairs, tuple) and pairs and isinstance(pairs[0], str)):
        single = pairs.id if isinstance(pairs, Pair) else pairs[0]
        raise InputError(f"pairs must be a list of pairs, got the single pair {single!r}: put it in a list")
    if not isinstance(pairs, Iterable):
        raise InputError(f"pairs must be a list of pairs, got {show(pairs)}")
    return map(_as_pair, pairs)


def _as_pair(given: Pair | tuple[Any, ...]) -> Pair:
    if isinstance(given, Pair):
        return given
    if not isinstance(given, tuple) or not 3 <= len(given) <= 4:
        raise InputError(
            f"a pair is Pair(...) or (id, image, text[, payload]), got {type(given).__name__}: {given!r:.80}"
        )
    return Pair(*given)


def nearest(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """The known names most similar to ``name``, the best first, ignoring case; [] if none is similar.

    >>> nearest("flower102", ["Flowers102", "Food101", "CIFAR10"])
    ['Flowers102']
    """
    folded = {item.casefold(): item for item in known}
    return [folded[match] for match in get_close_matches(name.casefold(), folded, n=most)]


def split_options(text: str) -> tuple[str, dict[str, str]]:
    """A name and the options behind its ``?``, as written, without decoding; the path of an existing file has none.

    Raises:
        ConfigError: an option is given twice.

    >>> split_options("http://host:6333?collection=shop&search_ef=64")
    ('http://host:6333', {'collection': 'shop', 'search_ef': '64'})
    >>> split_options("shards/test-0?.tar")  # a pattern, no options
    ('shards/test-0?.tar', {})
    """
    match = _WITH_OPTIONS.fullmatch(text)
    if match is None or os.path.exists(text):  # noqa: PTH110  # Path raises where a name is too long
        return text, {}
    options: dict[str, str] = {}
    for item in match["options"].split("&"):
        name, _, value = item.partition("=")
        if name in options:
            raise ConfigError(f"{match['name']}: option {name!r} is given twice")
        options[name] = value
    return match["name"], options


def did_you_mean(name: str, known: Collection[str]) -> str:
    """End of a message about an unknown name: the most similar known names, else the first few.

    >>> did_you_mean("wern", ["owl", "wren"]), did_you_mean("x", ["owl", "wren"])
    ("did you mean 'wren'?", "choose from 'owl', 'wren'")
    """
    if not known:
        return "there are none"
    if close := nearest(name, known):
        return f"did you mean {' or '.join(map(repr, close))}?"
    some = [repr(item) for item, _ in zip(known, range(5), strict=False)]
    return f"choose from {', '.join(some)}" + (f" and {len(known) - 5:,} more" if len(known) > 5 else "")


def in_words(said: str) -> str:
    """The message of a validator about a field, to follow its name, without the words of the library.

    >>> in_words("Input should be greater than or equal to 1"), in_words("Field required")
    ('must be greater than or equal to 1', 'is missing')
    """
    said = said.removeprefix("Value error, ").partition(", unable to parse")[0]
    words = {"Field required": "is missing", "Extra inputs are not permitted": "is not known here"}
    return words.get(said, said.replace("Input should be", "must be"))


def counted(number: int, one: str, many: str = "") -> str:
    """A number and what it counts, for a sentence; ``many`` where it is not ``one`` with an s.

    >>> counted(1, "pair"), counted(1_200, "pair"), counted(1, "query", "queries"), counted(0, "has", "have")
    ('1 pair', '1,200 pairs', '1 query', '0 have')
    """
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def show(value: object) -> str:
    """Any value for a message, shortened.

    >>> show("a" * 1000), show([1, 2])
    ("'aaaaaaaaaaaaaaaaaaaaaaaaaaa...aaaaaaaaaaaaaaaaaaaaaaaaaaaa'", '[1, 2]')
    """
    try:
        return _SHORT.repr(value)
    except Exception:  # an object whose own repr fails
        return type(value).__name__


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60


TEMPLATES = ("a photo of a {}.",)
"""CLIP's own: used when caller, source and model give none."""


def fill(template: str, name: str) -> str:
    """Put a class name into a template.

    >>> fill("a photo of a {}.", "fox"), fill("a drawing of {c}", "foxes")
    ('a photo of a fox.', 'a drawing of foxes')
    """
    return template.replace("{c}", name).replace("{}", name)


def check_templates(templates: Sequence[str]) -> tuple[str, ...]:
    """Check templates; returns a tuple.

    Raises:
        ConfigError: a template has no place for the class name.
    """
    for template in templates:
        if fill(template, "") == template:
            raise ConfigError(f"template {template!r} has no {{}} where the class name goes")
    return tuple(templates)
