"""What ``reco eval`` measures on: pictures with the classes or captions that they show, as vectors.

Encoded vectors stay in the folder of the run: an interrupted run resumes, and a second run encodes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias, cast

import numpy as np

from ..defaults import SCROLL_BATCH
from ..encoders.local import Encoder
from ..errors import ConfigError, DataError
from ..files import in_home
from ..ingest.fill import encode_source
from ..ingest.prepare import Encoded, Loaded, Skipped, add_marks, given_vectors, hash64
from ..ingest.run_options import IngestOptions
from ..memory import Memory
from ..sources import Labelled, is_vector_file, open_source, read_labelled, read_records, write_pairs
from ..sources.images import PictureFiles, RemoteImage, allowed_folders
from ..sources.location import Location, caption_table, is_index_address, parse_source
from ..sources.reading import is_memory
from ..sources.rows import FilePart, Rejected, Rows, check_column, group_of, groups_of
from ..sources.same_encoder import EncoderCheck
from ..sources.tables import SUFFIXES
from ..types import Fingerprint, Pair, Records, Vectors
from ..values import ROW, TEMPLATES, counted, fill, strip_marks
from .memories import uniform_hash
from .queries import columns_of

Kind: TypeAlias = Literal["classes", "captions"]
MAX_ROWS = 100_000
"""A larger source is sampled, by whole labels."""
_LABEL_COLUMNS = ("label", "class")


@dataclass(frozen=True)
class LabelledSet:
    """N pictures with texts.

    Attributes:
        kind: whether the texts are names of classes or captions.
        name: of the source.
        pairs: N; the text of a class is its prompt.
        labels: N, what each picture shows: its class, the value of a column, or its caption.
        texts: N names or captions.
        pictures: id -> picture, if that is a file or a URL.
        notes: on the source, one sentence each.
        broken: captions and rows of pairs whose picture or text cannot be used.
    """

    kind: Kind
    name: str
    pairs: Records
    labels: Sequence[str]
    texts: Sequence[str]
    pictures: Mapping[str, Path | RemoteImage] = field(default_factory=dict)
    notes: Sequence[str] = ()
    broken: Sequence[tuple[str, Rejected]] = ()

    def __len__(self) -> int:
        return len(self.pairs)


@dataclass(frozen=True)
class ReadOptions:
    """How a source is read.

    Attributes:
        encoder, fingerprint: of pictures and texts; None: the source holds vectors.
        folder: keeps encoded vectors.
        group: column of the labels; None: the caption.
        templates: prompts with ``{}`` for the name of a class; empty: of the source, else of the model.
        needs_labels: whether captions are refused.
        most_damaged: largest share of rows that cannot be used.
        progress: called with the number of rows read.
    """

    encoder: Encoder | None = None
    fingerprint: Fingerprint | None = None
    folder: Path = Path()
    group: str | None = None
    templates: Sequence[str] = ()
    needs_labels: bool = False
    most_damaged: float = 0.05
    allow_private_urls: bool = False
    progress: Callable[[int], object] = lambda count: None


def read_labelled_set(source: str, options: ReadOptions) -> LabelledSet:
    """Read and encode a source of any kind.

    Raises:
        DataError: the source cannot be read, is empty, or more than ``most_damaged`` of its rows are damaged.
        ConfigError: the source needs an encoder, or an option does not fit.
        FingerprintMismatch: the vectors are of another encoder.
    """
    if not is_index_address(source) and _has_classes(parse_source(source)):
        return _read_classes(source, options)
    if options.templates:
        raise ConfigError(f"{source} has captions and no classes: templates have no effect, leave them out")
    if options.encoder is None:
        if not is_vector_file(source):
            raise ConfigError(f"{source} holds pictures or texts, not vectors: give a model (--model)")
        parts = list(read_records(source))
        joined = Records.join(parts, parts[0].image.shape[1])
        return _captioned(source, replace(joined, payloads=list(map(strip_marks, joined.payloads))), options.group)
    rows = open_source(source)
    if options.needs_labels:
        raise ConfigError(
            f"--tune needs labels, because a wrong caption would teach and count as right, and {source} has captions: "
            "give a folder of one folder per class, or name the column of the labels, as in 'catalogue.csv?label=name'"
        )
    group = None if options.group is None else check_column(rows, options.group)
    return _encode(rows, replace(options, group=group))


def labelled_set_of(store: Memory) -> LabelledSet:
    """Return the pairs of a memory, with their pictures if it knows their folders.

    Raises:
        DataError: it holds more than :data:`MAX_ROWS` pairs.
        MemoryStoreError: it cannot be read.
    """
    if (count := store.count()) > MAX_ROWS:
        raise DataError(f"{store.location} holds {count:,} pairs, and {MAX_ROWS:,} are the most: give a source")
    pairs = Records.join(list(store.scroll(SCROLL_BATCH)), store.header.fingerprint.dimension)
    found, files = _captioned(store.location, pairs, None), PictureFiles(allowed_folders(store.location))
    named = {id_: files.find(id_, payload) for id_, payload in zip(pairs.ids, pairs.payloads, strict=True)}
    return replace(found, pictures={id_: path for id_, path in named.items() if path is not None})


def needs_encoder(source: str) -> bool:
    """Whether a source holds pictures or texts, rather than vectors."""
    return is_index_address(source) or not is_vector_file(source)


def _captioned(name: str, pairs: Records, group: str | None) -> LabelledSet:
    texts = [str(payload.get("caption") or id_) for id_, payload in zip(pairs.ids, pairs.payloads, strict=True)]
    return LabelledSet("captions", name, pairs, groups_of(pairs, group), texts)


def _has_classes(where: Location) -> bool:
    """Whether a source has names of classes instead of captions."""
    path = in_home(where.name)
    if "label" in where.options:
        return True
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        columns = columns_of(path)
        return not ("text" in where.options or "text" in columns) and bool(columns & set(_LABEL_COLUMNS))
    if not path.is_dir() or is_memory(where) or caption_table(path) is not None:
        return False
    folders = [one for one in path.iterdir() if one.is_dir() and not one.name.startswith(".")]
    return bool(folders) and not any(
        file.suffix in (".txt", ".tar", ".parquet") for folder in folders for file in folder.iterdir()
    )


def _read_classes(source: str, options: ReadOptions) -> LabelledSet:
    """Read pictures of classes; the prompt of a class is the normalized mean over the templates."""
    labelled = read_labelled(source, templates=options.templates)
    if options.encoder is None:
        raise ConfigError(f"{source} holds names of classes, not vectors: give a model (--model)")
    templates = labelled.templates or options.encoder.templates or TEMPLATES
    total = np.sum([options.encoder.texts([fill(one, name) for name in labelled.classes]) for one in templates], axis=0)
    prompts = np.asarray(total / np.linalg.norm(total, axis=1, keepdims=True), np.float32)
    notes = ["Prompts of the classes: " + ", ".join(map(repr, templates)) + "."]
    part = FilePart(source, lambda: _pairs_of(labelled, prompts))
    encoded = _encode(Rows(labelled.name, (part,), len(labelled), check=False), options)
    classes = (labelled.classes[label] for label in labelled.labels.tolist())
    name_of = dict(zip(labelled.query_ids, classes, strict=True))
    names = [name_of[id_] for id_ in encoded.pairs.ids]
    return replace(encoded, kind="classes", labels=names, texts=names, notes=[*notes, *encoded.notes])


def _pairs_of(labelled: Labelled, prompts: Vectors) -> Iterator[Pair]:
    for row, label in enumerate(labelled.labels.tolist()):
        caption = {"caption": labelled.classes[label]}
        yield Pair(labelled.query_ids[row], labelled.images[row], prompts[label], caption)


def _encode(rows: Rows, options: ReadOptions) -> LabelledSet:
    """Encode the pairs of a source that the folder does not hold yet."""
    if options.encoder is None or options.fingerprint is None:
        raise ConfigError(f"{rows.name} holds pictures, not vectors: give a model (--model)")
    stored = _EncodedRows(options.folder / "vectors" / options.fingerprint.digest[:16])
    pictures, digests, rejected = dict[str, Path | RemoteImage](), dict[str, str](), list[Rejected]()
    captions = dict[str, str]()  # by id, to name those whose picture is broken
    total = sum(1 for part in rows.parts for _ in part.read()) if rows.total is None else rows.total
    share, private = min(1.0, MAX_ROWS / max(total, 1)), options.allow_private_urls

    def is_sampled(row: Pair | Rejected) -> bool:
        label = row.where if isinstance(row, Rejected) else group_of(row, options.group)
        if share < 1.0 and uniform_hash(f"sample\0{label}") >= share:
            return False
        image = cast(object, row.image) if isinstance(row, Pair) else None
        if isinstance(row, Pair) and isinstance(row.text, str):
            captions[row.id] = row.text
        if isinstance(row, Pair) and isinstance(image, RemoteImage):
            pictures[row.id] = replace(image, allow_private=private)
        elif isinstance(row, Pair) and isinstance(image, Path):
            pictures[row.id] = image
        return True

    same = EncoderCheck(options.encoder, str(options.fingerprint), rows, allow_private=private)
    ingest = IngestOptions(allow_private_urls=private)
    with closing(encode_source(rows, options.encoder, stored.sift, ingest, is_sampled)) as batches:
        for batch in batches:
            same.compare(given_vectors(batch))
            encoded: dict[str, Encoded] = {}
            for row in batch:
                if isinstance(row, Rejected):
                    rejected.append(row)
                elif digests.setdefault(row.id, row.digest) != row.digest:
                    raise DataError(f"{rows.name}: the id {row.id!r} stands for two rows: make ids unique")
                elif isinstance(row, Encoded):
                    encoded[row.id] = row
            stored.write(list(encoded.values()))
            options.progress(len(batch))
    damaged = [row for row in rejected if not row.is_incomplete]
    if not digests or len(damaged) > options.most_damaged * (len(digests) + len(damaged)):
        first = f", the first: {(damaged or rejected)[0]}" if rejected else ""
        raise DataError(
            f"{len(rejected):,} of {len(digests) + len(rejected):,} rows of {rows.name} cannot be used{first}"
        )
    notes = [f"A sample of whole things, {len(digests):,} of {total:,} rows, was measured."] * (share < 1.0)
    notes += [f"{counted(len(rejected), 'row')} could not be used, the first: {rejected[0]}."] if rejected else []
    found = _captioned(rows.name, stored.read(digests, options.fingerprint.dimension), options.group)
    broken = [(captions[row.id], row) for row in damaged if row.id in captions]
    return replace(found, pictures=pictures, notes=notes, broken=broken)


class _EncodedRows:
    """Encoded rows by id and digest; a file holds a batch, and is complete or absent."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._batches: list[Records] = []
        self._places: dict[int, tuple[int, int]] = {}
        for path in sorted(folder.glob("*.npz")):
            for records in read_records(path):
                self._index(records)

    def sift(self, rows: Sequence[Loaded]) -> list[Loaded | Skipped]:
        """Replace rows that are stored by skipped ones."""
        return [
            Skipped(row.pair.id, row.digest, "unchanged") if hash64(row.pair.id, row.digest) in self._places else row
            for row in rows
        ]

    def write(self, rows: Sequence[Encoded]) -> None:
        """Write a batch of rows with different ids."""
        if not rows:
            return
        records = Records(
            [row.id for row in rows],
            np.stack([row.image for row in rows]),
            np.stack([row.text for row in rows]),
            [add_marks(row.payload, row.digest, None) for row in rows],
        )
        name = hashlib.sha256("".join(row.id + row.digest for row in rows).encode()).hexdigest()[:32]
        self._folder.mkdir(parents=True, exist_ok=True)
        write_pairs(self._folder / f"{name}.npz", [records])
        self._index(records)

    def read(self, digests: Mapping[str, str], dimension: int) -> Records:
        """Rows by id -> digest, (N, D) each, in that order."""
        places = [self._places[hash64(id_, digest)] for id_, digest in digests.items()]
        joined = Records.join([self._batches[batch].take([row]) for batch, row in places], dimension)
        return replace(joined, payloads=list(map(strip_marks, joined.payloads)))

    def _index(self, records: Records) -> None:
        for row, (id_, payload) in enumerate(zip(records.ids, records.payloads, strict=True)):
            self._places[hash64(id_, str(payload[ROW]))] = (len(self._batches), row)
        self._batches.append(records)
