"""``reco memory export``, ``import`` and ``copy``: move pairs between memories and files."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config import Settings
from ..errors import ConfigError
from ..files import in_home
from ..memory import Memory
from ..memory.opening import server_of
from ..values import counted
from .service import READS, TAKES, ServiceOptions, explained_lock, open_here_or_served
from .shared import (
    CollectionOption,
    Given,
    JsonOption,
    MemoryFlags,
    OpenOptions,
    OptionOption,
    keeps,
    open_copy,
    reco_of,
    say,
    take_flags,
    takes,
    with_progress,
)

if TYPE_CHECKING:
    from ..data.same_encoder import SameEncoder
    from ..opinions import Brought
    from ..types import Records

ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Skip pairs whose ids exist already, as after an interruption.")
]

_LEFT = "what was written stays; to go on, give the same command with --resume"


@takes(MemoryFlags)
def export_command(
    target: Annotated[Path, typer.Argument(help="File to write: .parquet or .npz.")],
    *,
    given: Given,
    as_json: JsonOption = False,
) -> None:
    """Write all pairs, as vectors with ids and payloads, and what people said, into one file, atomically.

    Needs no model.
    """
    from ..data import write_pairs
    from ..memory.transfer import all_pairs
    from ..opinions import say_unread, unread_in

    with keeps(f"nothing was written to {target}"), closing(take_flags(MemoryFlags, given).open()) as store:
        header, unread = store.header, unread_in(store.header)
        told = [one for name, one in header.said.items() if name not in unread]
        said = len(told)
        written = write_pairs(target, with_progress(all_pairs(store), store.count(), "export"), told)
    left = f"left out: {say_unread(unread)}" if unread else ""
    opinions = f" and {counted(said, 'opinion')}" if said else ""
    text = f"wrote {counted(written, 'pair')}{opinions} to {target}"
    found = {"exported": written, "opinions": said, "file": str(target)} | ({"left": left} if left else {})
    say(found, "\n".join(filter(None, [text, left])), as_json)


@takes(OpenOptions)
def import_command(
    source: Annotated[Path, typer.Argument(help="A .parquet or .npz file with id, image, text.")],
    *,
    given: Given,
    resume: ResumeOption = False,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Compare the vectors with some captions of the file.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Add pairs that are vectors already, of the model's encoder; of an export also what people said."""
    from ..data import is_vectors, read_feedback, read_records
    from ..data.rows import Rows
    from ..data.same_encoder import SameEncoder
    from ..memory.transfer import lacking
    from ..opinions import add_said

    asked, told = take_flags(OpenOptions, given), read_feedback(source) if is_vectors(source) else []
    records = read_records(source)
    first = list(islice(records, 1))  # a file that cannot be read is refused before a memory is made
    with explained_lock(asked.settings, TAKES):
        target = reco_of(asked.model, asked.settings, on_memory_failure="fail")
    with keeps(_LEFT), target as reco:
        rows = Rows(str(source), (), check=check)
        same = SameEncoder(reco.encoder, str(reco.manifest.fingerprint), rows, "give --no-check")
        batches = with_progress(_watched(chain(first, records), same), None, "import")
        wanted = (lacking(batch, reco.memory.store) for batch in batches) if resume else batches
        added = reco.memory.add_records((batch for batch in wanted if len(batch)), progress=True)
        pairs = len(reco.memory)
        said = add_said(reco.memory.store, told)
    text = f"imported {counted(added, 'pair')}; the memory holds {pairs:,}{_say_said(said)}"
    text = "\n".join(filter(None, [text, same.note, _say_left(said, "not imported")]))
    told_said = _tell_said(said, "not imported")
    say({"imported": added, "pairs": pairs, "vectors": same.note, **told_said}, text, as_json)


def _say_said(said: Brought) -> str:
    """How it goes on behind the pairs that a memory holds."""
    return f", and {counted(said.opinions, 'opinion')} of people" if said.opinions else ""


def _say_left(said: Brought, what: str) -> str:
    """What people said and was left out, behind what did not happen to it."""
    return f"{what}: {said.left}" if said.left else ""


def _tell_said(said: Brought, what: str) -> dict[str, Any]:
    """The same for programs."""
    left = _say_left(said, what)
    return {"opinions": said.opinions} | ({"left": left} if left else {})


def _watched(batches: Iterable[Records], same: SameEncoder) -> Iterator[Records]:
    """Batches of vectors (N, D), once they were compared."""
    for batch in batches:
        rows = zip(batch.image, batch.text, batch.payloads, strict=True)
        same.look(({"image": image, "text": text}, payload) for image, text, payload in rows)
        yield batch


@dataclass(frozen=True)
class BothEnds:
    """What the source and the target of a copy are, besides their addresses."""

    collection: CollectionOption = None
    to_collection: Annotated[
        str | None, typer.Option(help="Collection to copy to.", show_default="RECO_MEMORY_COLLECTION or reco")
    ] = None
    option: OptionOption = None


@takes(BothEnds)
def copy_command(
    source: Annotated[str, typer.Argument(help="Memory to copy: a folder, or the URL of a Qdrant server.")],
    target: Annotated[
        str | None,
        typer.Argument(help="Memory to copy to, made if there is none: a folder, or a URL.", show_default=False),
    ] = None,
    *,
    memory: Annotated[str | None, typer.Option(hidden=True)] = None,
    given: Given,
    resume: ResumeOption = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask where the target holds other pairs, too.")] = False,
    damaged: Annotated[
        bool, typer.Option("--damaged", help="Copy what can be read of a damaged folder, and list the rest.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Copy a memory into another of any kind: ids, vectors, payloads, calibration. Needs no model.

    Nothing is deleted in the target: where it holds pairs that the source has not, it is asked first. --collection is
    the source's, --option of the target.
    """
    from ..memory.damaged import open_damaged
    from ..memory.transfer import copy
    from ..opinions import add_said
    from ..progress import progress_bar

    if memory is not None:
        raise ConfigError(f"copy names its source first, as cp does: reco memory copy {memory} {target or source}")
    if target is None:
        here = MemoryFlags().settings.memory
        raise ConfigError(f"copy takes a source and a target: reco memory copy {here} {source}")
    ends = take_flags(BothEnds, given)
    from_settings = MemoryFlags(source, ends.collection).settings
    into_settings = MemoryFlags(target, ends.to_collection, ends.option).settings
    if _is_one(from_settings, into_settings):
        raise ConfigError(f"{target!r} is the memory that would be copied: name another target")
    if damaged:
        opened: AbstractContextManager[Any] = open_damaged(in_home(source))
    else:
        opened = closing(open_here_or_served(from_settings, ServiceOptions(), None))
    with ExitStack() as stack:
        stack.enter_context(keeps(_LEFT))
        stack.enter_context(explained_lock(from_settings, READS))
        store = stack.enter_context(opened)
        into = stack.enter_context(closing(open_copy(into_settings, store.header.fingerprint)))
        total, before = store.count(), into.count()
        if before and not yes and not damaged:
            _ask_about_others(store, into, target)
        with progress_bar(total=total, desc="copy", unit="pair") as bar:
            read = copy(store, into, resume=resume, progress=bar.update)
        said = add_said(into, (store.header if damaged else store.look()).said.values())
        pairs = into.count()
        copied = pairs - before if resume else read
    lines, told = [f"copied {counted(copied, 'pair')}; {target} holds {pairs:,}{_say_said(said)}"], {}
    if damaged:
        told = {"left": store.left, "log_read": store.log_read}
        lines += [f"{len(store.left):,} could not be read", *(f"  {name}: {why}" for name, why in store.left.items())]
        lines += [] if store.log_read else ["its log was left out: what was added last may be missing, add it again"]
    lines += filter(None, [_say_left(said, "not copied")])
    say({"copied": copied, "pairs": pairs, **_tell_said(said, "not copied"), **told}, "\n".join(lines), as_json)


def _is_one(one: Settings, other: Settings) -> bool:
    """Whether two settings name one memory: a folder, or a collection, however it is spelled."""
    places = (one.memory, other.memory)
    if not any("://" in place for place in places):
        return in_home(places[0]).resolve() == in_home(places[1]).resolve()
    if not all("://" in place for place in places):
        return False
    from ..memory.collection import own_name

    server, target = server_of(one), server_of(other)
    same_name = own_name(server, one.memory_collection) == own_name(target, other.memory_collection)
    return same_name and target.has_address_of(server)


def _ask_about_others(source: Memory, target: Memory, name: str) -> None:
    """Ask on a terminal whether to copy into a memory with other pairs."""
    from ..memory.transfer import find_other

    other = find_other(target, source)
    if other is None:
        return
    held = f"{name} holds {counted(target.count(), 'pair')}, others than the source's among them, such as {other!r}"
    if not sys.stdin.isatty():
        raise ConfigError(f"{held}: they would stay beside the copied ones. If that is meant, give --yes")
    if not typer.confirm(f"{held}. Copy {counted(source.count(), 'pair')} into it?", err=True):
        raise ConfigError(f"nothing was copied to {name}")
