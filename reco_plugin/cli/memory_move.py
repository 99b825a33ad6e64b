"""``reco memory export``, ``import`` and ``copy``: move pairs between memories and files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ConfigError
from .errors import keeps
from .shared import (
    CollectionOption,
    JsonOption,
    MemoryOption,
    ModelOption,
    OptionOption,
    memory_location,
    memory_settings,
    open_copy,
    open_store,
    parse_options,
    say,
    with_progress,
)

if TYPE_CHECKING:
    from ..same_encoder import SameEncoder
    from ..types import Records

ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Skip pairs whose ids exist already, as after an interruption.")
]

_LEFT = "what was written stays; to go on, give the same command with --resume"


def export_command(
    target: Annotated[Path, typer.Argument(help="File to write: .parquet or .npz.")],
    *,
    memory: MemoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write all pairs, as vectors with ids and payloads, into one file, atomically. Needs no model."""
    from ..data import write_pairs
    from ..memory.transfer import all_pairs

    with keeps(f"nothing was written to {target}"), closing(open_store(memory)) as store:
        written = write_pairs(target, with_progress(all_pairs(store), store.count(), "export"))
    say({"exported": written, "file": str(target)}, f"wrote {written:,} pairs to {target}", as_json)


def import_command(
    source: Annotated[Path, typer.Argument(help="A .parquet or .npz file with id, image, text.")],
    *,
    model: ModelOption = None,
    memory: MemoryOption = None,
    resume: ResumeOption = False,
    option: OptionOption = None,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Compare the vectors with some captions of the file.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Add pairs that are vectors already, of the model's encoder."""
    from ..data import read_records
    from ..data.rows import Rows
    from ..memory.transfer import lacking
    from ..reco import Reco
    from ..same_encoder import SameEncoder

    asked = parse_options(option)
    target = Reco.open(model, memory_location(memory), memory_options=asked, on_memory_failure="fail")
    with keeps(_LEFT), target as reco:
        rows = Rows(str(source), (), check=check)
        same = SameEncoder(reco.encoder, str(reco.manifest.fingerprint), rows, "give --no-check")
        batches = with_progress(_watched(read_records(source), same), None, "import")
        wanted = (lacking(batch, reco.memory.store) for batch in batches) if resume else batches
        added = reco.memory.add_records((batch for batch in wanted if len(batch)), progress=True)
        pairs = len(reco.memory)
    text = "\n".join([f"imported {added:,} pairs; the memory holds {pairs:,}", *filter(None, [same.note])])
    say({"imported": added, "pairs": pairs, "vectors": same.note}, text, as_json)


def _watched(batches: Iterable[Records], same: SameEncoder) -> Iterator[Records]:
    """Batches of vectors (N, D), once they were compared."""
    for batch in batches:
        rows = zip(batch.image, batch.text, batch.payloads, strict=True)
        same.look(({"image": image, "text": text}, payload) for image, text, payload in rows)
        yield batch


def copy_command(
    target: Annotated[str, typer.Argument(help="Memory to copy to: a folder, or the URL of a Qdrant server.")],
    *,
    memory: MemoryOption = None,
    collection: CollectionOption = None,
    to_collection: Annotated[
        str | None, typer.Option(help="Collection to copy to.", show_default="RECO_MEMORY_COLLECTION or reco")
    ] = None,
    resume: ResumeOption = False,
    option: OptionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy a memory into another of any kind: ids, vectors, payloads, trust. Needs no model."""
    from ..memory.transfer import copy

    settings = memory_settings(target, to_collection, option)
    with keeps(_LEFT), closing(open_store(memory, collection)) as source:
        origin = (source.location, getattr(source, "collection", None))
        if origin in ((settings.memory, None), (settings.memory, settings.memory_collection)):
            raise ConfigError(f"{target!r} is the memory that would be copied: name another target")
        with closing(open_copy(settings, source.header.fingerprint)) as into:
            total, before = source.count(), into.count()
            copied = sum(with_progress(copy(source, into, resume=resume), total, "copy"))
            pairs = into.count()
            copied = pairs - before if resume else copied
    say({"copied": copied, "pairs": pairs}, f"copied {copied:,} pairs; {target} holds {pairs:,}", as_json)


def rescue_command(
    target: Annotated[str, typer.Argument(help="Memory to copy to: a new folder, or the URL of a Qdrant server.")],
    *,
    memory: MemoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy the readable pairs of an embedded memory that no longer opens; it stays as it is.

    Needs no model. Lists the pairs that were not copied: add them again from their source.
    """
    from tqdm import tqdm

    from ..memory.header import read_header
    from ..memory.rescue import rescue

    broken = Path(memory_settings(memory).memory).expanduser()
    found = read_header(broken) if broken.is_dir() else None
    if found is None or found[0] != "edge":
        raise ConfigError(f"{str(broken)!r} is no folder with an embedded memory (edge): only such can be rescued")
    settings = memory_settings(target)
    if Path(settings.memory).expanduser().resolve() == broken.resolve():
        raise ConfigError(f"{target!r} is the memory that would be copied: name another target")
    into = open_copy(settings, found[1].fingerprint)
    with closing(into), tqdm(desc="rescue", unit="pair", disable=None) as bar:
        done = rescue(broken, found[1], into, bar.update)
    lines = [f"copied {done.pairs:,} pairs to {target}; {len(done.left):,} could not be"]
    lines += [f"  {name}: {why}" for name, why in done.left.items()]
    if not done.log_read:
        lines.append("its log cannot be read: what was added last may be missing, add it again")
    say({"copied": done.pairs, "left": done.left, "log_read": done.log_read}, "\n".join(lines), as_json)
