"""Things that should be found: read from a list, and those that a memory holds pairs of."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..calibration.nearest import RowNumbers
from ..data.cells import CellError, image_of, numbers_of, text_of, unit_row
from ..data.images import RemoteImage
from ..data.rows import Rejected, RowError
from ..data.source import column_names, parse_source, read_lines
from ..data.tables import SUFFIXES, TableFile, TableRow, open_lines
from ..encode import EncodesPairs
from ..errors import DataError, ImageError, InputError
from ..ingest.source import open_source
from ..memory import Memory
from ..types import ImageInput, Pair, Payload, Records, Vectors, caption_of
from ..values import counted

SAMPLE = 20_000
"""Pairs of a memory that are looked at, at most; all are counted."""
_AT_ONCE = 64  # pictures that are decoded and encoded together
_SPACES = re.compile(r"\s+")


@dataclass(frozen=True)
class WantedThing:
    """One row of a list.

    Attributes:
        id: of the row; a picture with the id of a pair in the memory is held already.
        words: that people are to find it by.
        payload: of the row.
        text: vector (D,), where the source has no words of its own.
        image: a picture of it, or its vector (D,); None: only the words are known.
    """

    id: str
    words: str
    payload: Payload = field(default_factory=dict)
    text: npt.NDArray[np.floating[Any]] | None = None
    image: ImageInput | RemoteImage | npt.NDArray[np.floating[Any]] | None = None


@dataclass(frozen=True)
class WantedList:
    """All rows of a list, and those that cannot be used."""

    rows: Sequence[WantedThing]
    rejected: Sequence[Rejected] = ()


@dataclass(frozen=True)
class Listed:
    """R encoded rows of T things.

    Attributes:
        names: T.
        thing: (R,) number of each row's thing.
        ids: R.
        words: R.
        text: (R, D).
        image: (R, D); a row of NaN where there is no picture.
    """

    names: Sequence[str]
    thing: RowNumbers
    ids: Sequence[str]
    words: Sequence[str]
    text: Vectors
    image: Vectors

    @property
    def pictured(self) -> npt.NDArray[np.bool_]:
        """(R,) whether a row has a picture."""
        return np.asarray(~np.isnan(self.image[:, 0]))


def read_things(source: str | Path) -> WantedList:
    """Read a list of things.

    Args:
        source: a ``.txt`` of names, one a line; a ``.csv``, ``.tsv`` or ``.jsonl`` with the column ``text``, and
            optional ones ``id`` and ``image`` (other names: ``'shop.csv?text=title&image=photo'``); or any source of
            pairs (docs/sources.md).

    Raises:
        DataError: it is missing, of no known kind, or holds no thing.
        ConfigError: an unknown option of the source.
    """
    where = parse_source(source)
    suffix = where.path.suffix.lower()
    if suffix == ".txt" and where.path.is_file():
        found = WantedList([WantedThing(name, name) for name in dict.fromkeys(read_lines(where.path))])
    elif suffix in SUFFIXES and where.path.is_file():
        found = _read_table(source)
    else:
        found = _gather(_wanted(row) for row in open_source(source))
    if not found.rows:
        why, failed = "it is empty", found.rejected
        if failed:
            why = f"{counted(len(failed), 'row was', 'rows were')} rejected, the first because {failed[0]}"
        raise DataError(f"{where.name} names no thing: {why}")
    return found


def _read_table(source: str | Path) -> WantedList:
    where = parse_source(source).without("check")
    names = column_names(where, None, "images")
    folder = where.images or where.path.parent
    table = TableFile(where.path, names, (names.text,))

    def rows() -> Iterator[WantedThing | Rejected]:
        with open_lines(where.path) as lines:
            for row in table.rows(lines):
                if isinstance(row, RowError):
                    yield row.rejected
                else:
                    yield from _of_table(row, folder)

    return _gather(rows())


def _of_table(row: TableRow, folder: Path) -> Iterator[WantedThing | Rejected]:
    """A row of a table; one whose picture cannot be used keeps its words, and is listed as well."""
    names, own = row.table.names, row.values
    payload = {name: value for name, value in own.items() if name not in vars(names).values()}
    picture, image = own.get(names.image), None
    try:
        words = text_of(own[names.text])
    except CellError as error:
        yield Rejected(row.where, f"column {names.text!r}: {error}")
        return
    id_ = str(own.get(names.id, picture if isinstance(picture, str) else words))
    if picture is not None:
        numbers = numbers_of(picture)
        try:
            image = image_of(picture, folder) if numbers is None else unit_row(numbers)
        except CellError as error:
            yield Rejected(row.where, f"column {names.image!r}: {error}", id_)
    yield WantedThing(id_, words, payload, None, image)


def _wanted(row: Pair | Rejected) -> WantedThing | Rejected:
    if isinstance(row, Rejected):
        return row
    if isinstance(row.text, str):
        return WantedThing(row.id, row.text, row.payload, None, row.image)
    return WantedThing(row.id, caption_of(row.payload) or row.id, row.payload, row.text, row.image)


def _gather(rows: Iterator[WantedThing | Rejected]) -> WantedList:
    kept, rejected = list[WantedThing](), list[Rejected]()
    for row in rows:
        (kept if isinstance(row, WantedThing) else rejected).append(row)  # type: ignore[arg-type]
    return WantedList(kept, rejected)


def name_of(words: str | None, payload: Payload, group: str | None, id_: str) -> str:
    """What a row or a pair is called: the field of its payload, else its words, else its id."""
    value = payload.get(group) if group else None
    return str(value) if value is not None else words or id_


def key_of(name: str) -> str:
    """The same for two spellings of one name: blanks and capitals do not count.

    >>> key_of(" A  red Fox ")
    'a red fox'
    """
    return _SPACES.sub(" ", name).strip().casefold()


def encode_things(
    encoder: EncodesPairs, wanted: WantedList, group: str | None, progress: Callable[[int], object] = int
) -> tuple[Listed, list[Rejected]]:
    """Encode a list; a picture that cannot be read leaves its row with words only, and is listed.

    Args:
        encoder: of the memory.
        wanted: the rows.
        group: field of the payload that names a row's thing; None: its words do.
        progress: gets a number of rows.

    Raises:
        InputError: no row has the field.
    """
    rows = wanted.rows
    if group and not any(row.payload.get(group) is not None for row in rows):
        known = sorted({name for row in rows[:1000] for name in row.payload})
        raise InputError(f"group: no row of the list has a field {group!r}; there are: {', '.join(known) or 'none'}")
    numbers, names, thing = dict[str, int](), list[str](), list[int]()
    for row in rows:
        name = name_of(row.words, row.payload, group, row.id)
        if key_of(name) not in numbers:
            names.append(name)
        thing.append(numbers.setdefault(key_of(name), len(numbers)))
    text = np.empty((len(rows), encoder.dimension), np.float32)
    image = np.full_like(text, np.nan)
    failed = list[Rejected]()
    for start in range(0, len(rows), _AT_ONCE):
        here = range(start, min(start + _AT_ONCE, len(rows)))
        _fill(text, here, [rows[at].words if rows[at].text is None else rows[at].text for at in here], encoder.texts)
        _fill_pictures(image, here, rows, encoder, failed)
        progress(len(here))
    listed = Listed(names, np.array(thing, np.intp), [row.id for row in rows], [row.words for row in rows], text, image)
    return listed, failed


def _fill(out: Vectors, places: Sequence[int], values: Sequence[Any], encode: Callable[[list[Any]], Vectors]) -> None:
    """Fill rows with vectors that are given, or with what is encoded."""
    raw = [place for place, value in enumerate(values) if not isinstance(value, np.ndarray)]
    for place, value in enumerate(values):
        if isinstance(value, np.ndarray):
            if value.shape != (out.shape[1],):
                raise InputError(
                    f"row {places[place] + 1} of the list has a vector of shape {value.shape}, the memory's encoder "
                    f"makes ({out.shape[1]},)"
                )
            out[places[place]] = value / max(float(np.linalg.norm(value)), 1e-12)
    if raw:
        out[[places[place] for place in raw]] = encode([values[place] for place in raw])


def _fill_pictures(
    out: Vectors, places: Sequence[int], rows: Sequence[WantedThing], encoder: EncodesPairs, failed: list[Rejected]
) -> None:
    here, values = list[int](), list[Any]()
    for place in places:
        picture = rows[place].image
        if picture is None:
            continue
        try:
            values.append(picture.read() if isinstance(picture, RemoteImage) else picture)
            here.append(place)
        except (DataError, ImageError) as error:
            failed.append(Rejected(f"row {place + 1} of the list", str(error), rows[place].id))
    try:
        _fill(out, here, values, encoder.images)
    except ImageError:
        for place, value in zip(here, values, strict=True):  # one by one: which is it?
            try:
                _fill(out, [place], [value], encoder.images)
            except ImageError as error:
                failed.append(Rejected(f"row {place + 1} of the list", str(error), rows[place].id))


@dataclass(frozen=True)
class KnownPairs:
    """N pairs of a memory, drawn where there are more, and all that is counted of each of its things.

    Attributes:
        pairs: N, without payloads.
        thing: (N,) number of each one's thing.
        names: by number.
        ids_of: by number, ids of all of its pairs.
    """

    pairs: Records
    thing: RowNumbers
    names: Mapping[int, str]
    ids_of: Mapping[int, Sequence[str]]


def read_known(store: Memory, listed: Listed, group: str | None, *, seed: int = 0) -> KnownPairs:
    """Read a memory's things; those of the list keep their numbers, the others follow.

    Raises:
        MemoryStoreError: the memory fails.
    """
    numbers = {key_of(name): number for number, name in enumerate(listed.names)}
    names, ids_of, number_of = dict(enumerate(listed.names)), dict[int, list[str]](), dict[str, int]()
    for id_, payload in store.payloads():
        name = name_of(caption_of(payload), payload, group, id_)
        number = numbers.setdefault(key_of(name), len(numbers))
        names.setdefault(number, name)
        ids_of.setdefault(number, []).append(id_)
        number_of[id_] = number
    ids = sorted(number_of)
    if len(ids) > SAMPLE:
        ids = [ids[row] for row in np.sort(np.random.default_rng(seed).permutation(len(ids))[:SAMPLE]).tolist()]
    batches = [
        Records(batch.ids, batch.image, batch.text, [{}] * len(batch))
        for batch in (store.scroll(ids=ids) if ids else ())
    ]
    pairs = Records.join(batches, listed.text.shape[1])
    return KnownPairs(pairs, np.array([number_of[id_] for id_ in pairs.ids], np.intp), names, ids_of)
