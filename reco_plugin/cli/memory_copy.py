"""``reco memory copy``: copy a memory to another one, to a file, or back from a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ConfigError
from ..files import in_home
from ..memory import Header, Memory, memory_of
from ..memory.header import read_header
from ..settings import Settings
from ..values import counted
from .shared import (
    JsonOption,
    MemoryFlags,
    ModelOption,
    OpenOptions,
    explained_lock,
    is_server,
    keeps,
    open_here_or_served,
    reco_of,
    say,
    with_progress,
)

if TYPE_CHECKING:
    from ..types import Records

_KEPT = "what was written stays; run the same command again, with --yes"


@dataclass
class _Copied:
    """Result of a copy."""

    copied: int  # pairs
    pairs: int | None = None  # in the target; None: a file
    opinions: int = 0
    notes: list[str] = field(default_factory=list)


def copy_command(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A memory (a folder, or the URL of a Qdrant server), or a file.")
    ],
    target: Annotated[
        str,
        typer.Argument(metavar="TARGET", help="A memory, made if there is none, or a file: .parquet or .npz."),
    ],
    *,
    model: ModelOption = None,
    yes: Annotated[
        bool,
        typer.Option("--yes", help="Add to a memory that holds pairs, continue a stopped copy, or replace a file."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Copy a memory to another one or to a file, or back from a file: pairs, feedback, and what was learned.

    Nothing is deleted in a memory. A copy from a file needs the model, to check that the vectors are of its encoder;
    other copies need no model.
    """
    from ..sources import is_vector_file

    if is_vector_file(target):
        result = _to_file(source, Path(target), yes=yes)
    elif is_vector_file(source):
        result = _from_file(Path(source), target, model)
    elif "://" not in target and Path(target).suffix in (".csv", ".tsv", ".json", ".jsonl"):
        raise ConfigError(f"{target} cannot hold a memory: name a .parquet or .npz file, or a folder")
    else:
        result = _to_memory(source, target, yes=yes)
    feedback = f" and {counted(result.opinions, 'opinion')}" if result.opinions else ""
    held = "" if result.pairs is None else f"; it holds {counted(result.pairs, 'pair')}"
    lines = [f"copied {counted(result.copied, 'pair')}{feedback} to {target}{held}", *result.notes]
    say(vars(result), "\n".join(lines), as_json)


def _to_file(source: str, target: Path, *, yes: bool) -> _Copied:
    from ..memory.base import all_pairs
    from ..sources import write_pairs

    if target.exists() and not yes:
        raise ConfigError(f"{target} exists: name another file, or give --yes to replace it")
    settings = MemoryFlags(source).existing
    with keeps(f"nothing was written to {target}"), closing(open_here_or_served(settings, None)) as store:
        feedback = list(header_of(store).said.values())
        written = write_pairs(target, with_progress(all_pairs(store), store.count(), "copy"), feedback)
    return _Copied(written, None, len(feedback))


def _from_file(source: Path, target: str, model: str | None) -> _Copied:
    from ..signals.opinions import add_opinions
    from ..sources import read_feedback, read_records
    from ..sources.rows import Rows
    from ..sources.same_encoder import EncoderCheck

    feedback, records = read_feedback(source), read_records(source)
    first = list(islice(records, 1))  # a file that cannot be read is refused before a memory is made
    settings = OpenOptions(target, model).settings
    with ExitStack() as stack:
        stack.enter_context(keeps(_KEPT))
        reco = stack.enter_context(reco_of(settings, on_memory_failure="fail"))
        check = EncoderCheck(reco.encoder, str(reco.manifest.fingerprint), Rows(str(source), ()))

        def checked() -> Iterator[Records]:
            for batch in chain(first, records):
                rows = zip(batch.image, batch.text, batch.payloads, strict=True)
                check.compare(({"image": image, "text": text}, payload) for image, text, payload in rows)
                yield batch

        added = reco.memory.add_records(with_progress(checked(), None, "copy"), progress=True)
        add_opinions(reco.memory.store, feedback)
        return _Copied(added, len(reco.memory), reco.memory.opinions_known, [check.note] if check.note else [])


def _to_memory(source: str, target: str, *, yes: bool) -> _Copied:
    from ..memory.base import copy
    from ..progress import progress_bar
    from ..signals.opinions import add_opinions

    origin, into_settings = MemoryFlags(source).existing, MemoryFlags(target).settings
    if _place(origin) == _place(into_settings):
        raise ConfigError(f"{target!r} is the memory that would be copied: name another target")
    with ExitStack() as stack:
        stack.enter_context(keeps(_KEPT))
        stack.enter_context(explained_lock(origin))
        store = stack.enter_context(closing(open_here_or_served(origin, None)))
        with explained_lock(into_settings):
            into = stack.enter_context(closing(memory_of(into_settings, store.header.fingerprint)))
        if (held := into.count()) and not yes:
            raise ConfigError(
                f"{target} holds {counted(held, 'pair')}, which would stay beside the copied ones. To copy all the "
                "same, or to continue a copy that stopped, give --yes"
            )
        with progress_bar(total=store.count(), desc="copy", unit="pair") as bar:
            read = copy(store, into, progress=bar.update)
        add_opinions(into, header_of(store).said.values())
        return _Copied(read, into.count(), len(into.header.said))


def header_of(store: Memory) -> Header:
    """Read the header with the feedback; a service does not return it, but the folder that it has open contains it."""
    header = read_header(Path(store.location)) if store.kind == "served" else None
    return header or store.look()


def _place(settings: Settings) -> object:
    """The absolute folder, or the URL and collection of a server."""
    if is_server(settings):
        return settings.memory, settings.memory_collection
    return in_home(settings.memory).resolve()
