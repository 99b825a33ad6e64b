"""What ``reco eval`` measures on: pictures with the classes or the captions that they show, as vectors.

What was encoded is kept in the folder of the run, so that an interrupted run goes on, and a second one encodes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias, cast

import numpy as np

from ..encoders.local import Encoder
from ..errors import ConfigError, DataError
from ..files import in_home
from ..ingest.fill import encode_source
from ..ingest.origins import is_memory, open_source
from ..ingest.prepare import Encoded, Loaded, Skipped, add_marks, given_vectors, key_of
from ..ingest.run_options import IngestOptions
from ..sources import Labelled, is_vectors, read_labelled, read_records, write_pairs
from ..sources.images import RemoteImage
from ..sources.indexes.open_index import is_index
from ..sources.location import Location, caption_table, parse_source
from ..sources.rows import FilePart, Rejected, Rows, check_column, group_of, groups_of
from ..sources.same_encoder import SameEncoder
from ..sources.tables import SUFFIXES
from ..types import Fingerprint, Pair, Records, Vectors
from ..values import ROW, TEMPLATES, counted, fill, strip_marks
from .memories import chance
from .queries import columns_of

Kind: TypeAlias = Literal["classes", "captions"]
"""classes: each picture shows a class of a name. captions: each has a text of its own; a catalogue, too."""
MOST_ROWS = 100_000
"""Rows that are used; of a larger source, a sample of whole things."""
_REJECTED = 0.05  # of the rows: more that cannot be used are no accident
_LABELS = ("label", "class")


@dataclass(frozen=True)
class Things:
    """N pictures with texts.

    Attributes:
        kind: what the texts are.
        name: of the source.
        pairs: N; of classes, the text is the class's prompt.
        things: N, what each picture shows: its class, the value of a column, or its caption.
        texts: N, for people.
        pictures: id -> its picture, where that is a file or a URL.
        notes: what people should know of the source.
    """

    kind: Kind
    name: str
    pairs: Records
    things: Sequence[str]
    texts: Sequence[str]
    pictures: Mapping[str, Path | RemoteImage] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.pairs)


@dataclass(frozen=True)
class Reading:
    """How a source is read.

    Attributes:
        encoder, fingerprint: of what is not a vector; None: the source holds vectors.
        folder: of what was encoded.
        group: column of what pictures show; None: the caption.
        templates: prompts with ``{}`` for the name of a class; none: the source's, else the model's.
        labelled: whether captions are refused, since a wrong one would teach and count as right.
        allow_private_urls: whether pictures may be fetched from private addresses.
        progress: called with the number of rows read.
    """

    encoder: Encoder | None = None
    fingerprint: Fingerprint | None = None
    folder: Path = Path()
    group: str | None = None
    templates: Sequence[str] = ()
    labelled: bool = False
    allow_private_urls: bool = False
    progress: Callable[[int], object] = lambda count: None


def read_things(source: str, how: Reading) -> Things:
    """Read and encode a source of any kind.

    Raises:
        DataError: it cannot be read, holds nothing, or more than a twentieth of its rows are damaged.
        ConfigError: raw pictures or texts and no encoder; or an option that does not fit.
        FingerprintMismatch: its vectors are of another encoder.
    """
    if not is_index(source) and _is_labelled(parse_source(source)):
        return _read_classes(source, how)
    if how.templates:
        raise ConfigError(f"{source} has captions and no classes: templates have no effect, leave them out")
    if how.encoder is None:
        if not is_vectors(source):
            raise ConfigError(f"{source} holds pictures or texts, not vectors: give a model (--model)")
        pairs = list(read_records(source))
        joined = Records.join(pairs, pairs[0].image.shape[1])
        return _captioned(
            source, Records(joined.ids, joined.image, joined.text, list(map(strip_marks, joined.payloads))), how
        )
    rows = open_source(source)
    if how.labelled:
        raise ConfigError(
            f"--tune needs labels, because a wrong caption would teach and count as right, and {source} has captions: "
            "give a folder of one folder per class, or name the column of the labels, as in 'catalogue.csv?label=name'"
        )
    if how.group is not None:
        how = replace(how, group=check_column(rows, how.group))
    pairs_, pictures, notes = _encode(rows, how)
    found = _captioned(rows.name, pairs_, how)
    return Things("captions", found.name, pairs_, found.things, found.texts, pictures, notes)


def needs_encoder(source: str) -> bool:
    """Whether a source holds pictures or texts, rather than vectors."""
    return is_index(source) or not is_vectors(source)


def _captioned(name: str, pairs: Records, how: Reading) -> Things:
    texts = [str(payload.get("caption") or id_) for id_, payload in zip(pairs.ids, pairs.payloads, strict=True)]
    return Things("captions", name, pairs, groups_of(pairs, how.group), texts)


def _is_labelled(where: Location) -> bool:
    """Whether a source names the classes of pictures, in place of captions."""
    path = in_home(where.name)
    if "label" in where.options:
        return True
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        columns = columns_of(path)
        return not ("text" in where.options or "text" in columns) and bool(columns & set(_LABELS))
    if not path.is_dir() or is_memory(where) or caption_table(path) is not None:
        return False
    inner = [one for one in path.iterdir() if one.is_dir() and not one.name.startswith(".")]
    return bool(inner) and not any(
        one.suffix in (".txt", ".tar", ".parquet") for part in inner for one in part.iterdir()
    )


def _read_classes(source: str, how: Reading) -> Things:
    """Pictures of classes, each with its class's prompt: the mean over the templates, normalised."""
    labelled = read_labelled(source, templates=how.templates)
    if how.encoder is None:
        raise ConfigError(f"{source} holds names of classes, not vectors: give a model (--model)")
    templates = labelled.templates or how.encoder.templates or TEMPLATES
    total = np.sum([how.encoder.texts([fill(one, name) for name in labelled.classes]) for one in templates], axis=0)
    prompts = np.asarray(total / np.linalg.norm(total, axis=1, keepdims=True), np.float32)
    notes = ["Prompts of the classes: " + ", ".join(map(repr, templates)) + "."]
    ids = labelled.query_ids
    rows = Rows(
        labelled.name, (FilePart(source, lambda: _pairs_of(labelled, ids, prompts)),), len(labelled), check=False
    )
    pairs, pictures, more = _encode(rows, how)
    name_of = {id_: labelled.classes[label] for id_, label in zip(ids, labelled.labels.tolist(), strict=True)}
    names = [name_of[id_] for id_ in pairs.ids]
    return Things("classes", labelled.name, pairs, names, names, pictures, notes + more)


def _pairs_of(labelled: Labelled, ids: Sequence[str], prompts: Vectors) -> Iterator[Pair]:
    for row, label in enumerate(labelled.labels.tolist()):
        yield Pair(ids[row], labelled.images[row], prompts[label], {"caption": labelled.classes[label]})


def _encode(rows: Rows, how: Reading) -> tuple[Records, dict[str, Path | RemoteImage], list[str]]:
    """The pairs of a source; rows that were encoded before are read from the folder."""
    if how.encoder is None or how.fingerprint is None:
        raise ConfigError(f"{rows.name} holds pictures, not vectors: give a model (--model)")
    kept = _EncodedRows(how.folder / "vectors" / how.fingerprint.digest[:16])
    pictures, digests, rejected = dict[str, Path | RemoteImage](), dict[str, str](), list[Rejected]()

    (share, rows_of_all), private = _sampled(rows), how.allow_private_urls

    def see(row: Pair | Rejected) -> bool:
        name = row.where if isinstance(row, Rejected) else group_of(row, how.group)
        if share < 1.0 and chance(f"sample\0{name}") >= share:
            return False
        if isinstance(row, Pair):
            image = cast(object, row.image)
            if isinstance(image, RemoteImage):
                pictures[row.id] = replace(image, allow_private=private)
            elif isinstance(image, Path):
                pictures[row.id] = image
        return True

    same = SameEncoder(how.encoder, str(how.fingerprint), rows, allow_private=private)
    options = IngestOptions(allow_private_urls=private)
    with closing(encode_source(rows, how.encoder, kept.sift, options, see)) as batches:
        for batch in batches:
            same.look(given_vectors(batch))
            fresh: dict[str, Encoded] = {}
            for row in batch:
                if isinstance(row, Rejected):
                    rejected.append(row)
                elif digests.setdefault(row.id, row.digest) != row.digest:
                    raise DataError(f"{rows.name}: the id {row.id!r} stands for two rows: make ids unique")
                elif isinstance(row, Encoded):
                    fresh[row.id] = row
            kept.keep(list(fresh.values()))
            how.progress(len(batch))
    damaged = [row for row in rejected if not row.half]
    if not digests or len(damaged) > _REJECTED * (len(digests) + len(damaged)):
        first = f", the first: {(damaged or rejected)[0]}" if rejected else ""
        raise DataError(
            f"{len(rejected):,} of {len(digests) + len(rejected):,} rows of {rows.name} cannot be used{first}"
        )
    notes = [f"A sample of whole things, {len(digests):,} of {rows_of_all:,} rows, was measured."] * (share < 1.0)
    notes += [f"{counted(len(rejected), 'row')} could not be used, the first: {rejected[0]}."] if rejected else []
    return kept.read(digests, how.fingerprint.dimension), pictures, notes


def _sampled(rows: Rows) -> tuple[float, int]:
    """Which share of the things is used, and the number of all rows, which are counted where that is not known."""
    total = sum(1 for part in rows.parts for _ in part.read()) if rows.total is None else rows.total
    return min(1.0, MOST_ROWS / max(total, 1)), total


class _EncodedRows:
    """Rows that were encoded, by id and content; a file a batch, which is complete or absent."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._batches: list[Records] = []
        self._places: dict[int, tuple[int, int]] = {}
        for path in sorted(folder.glob("*.npz")):
            for records in read_records(path):
                self._know(records)

    def sift(self, rows: Sequence[Loaded]) -> list[Loaded | Skipped]:
        """Replace rows that are kept by skipped ones."""
        return [
            Skipped(row.pair.id, row.digest, "unchanged") if key_of(row.pair.id, row.digest) in self._places else row
            for row in rows
        ]

    def keep(self, rows: Sequence[Encoded]) -> None:
        """Write the rows of a batch, of different ids."""
        if not rows:
            return
        records = Records(
            [row.id for row in rows],
            np.stack([row.image for row in rows]),
            np.stack([row.text for row in rows]),
            [add_marks(row.payload, row.digest, None) for row in rows],
        )
        named = hashlib.sha256("".join(row.id + row.digest for row in rows).encode()).hexdigest()[:32]
        self._folder.mkdir(parents=True, exist_ok=True)
        write_pairs(self._folder / f"{named}.npz", [records])
        self._know(records)

    def read(self, digests: Mapping[str, str], dimension: int) -> Records:
        """The rows of these ids and digests, (N, D) each, in the order given."""
        places = [self._places[key_of(id_, digest)] for id_, digest in digests.items()]
        parts = [self._batches[batch].take([row]) for batch, row in places]
        joined = Records.join(parts, dimension)
        return Records(joined.ids, joined.image, joined.text, [strip_marks(payload) for payload in joined.payloads])

    def _know(self, records: Records) -> None:
        for row, (id_, payload) in enumerate(zip(records.ids, records.payloads, strict=True)):
            self._places[key_of(id_, str(payload[ROW]))] = (len(self._batches), row)
        self._batches.append(records)
