"""``reco memory add, update, sync, remove``: daily changes."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..ingest.options import Cluster, IngestOptions
from .flags import Given, takes
from .ingesting import Fill, FillOptions, SourceArgument
from .options import JsonOption, MemoryOption
from .stores import memory_settings, open_store, say

if TYPE_CHECKING:
    from ..config import Settings


@takes(FillOptions, Cluster, IngestOptions, but=("collection", "source", "dry_run"))
def add_command(origin: SourceArgument, *, given: Given) -> None:
    """Encode pairs and store them; an id that exists is replaced if its row changed, so run it again to resume."""
    Fill(origin, given).do("add")


@takes(
    FillOptions, Cluster, IngestOptions, but=("collection", "option", "exclude", "source", "duplicates", "threshold")
)
def update_command(origin: SourceArgument, *, given: Given) -> None:
    """Replace pairs whose rows changed; rows with an unknown id are counted and skipped."""
    Fill(origin, given, only_known=True).do("update")


@takes(FillOptions, Cluster, IngestOptions, but=("collection",))
def sync_command(
    origin: SourceArgument,
    *,
    given: Given,
    max_delete: Annotated[
        float, typer.Option(min=0, max=1, help="Delete nothing if a larger share of the source's pairs would go.")
    ] = 0.2,
) -> None:
    """Make the memory match the source: add, replace, and delete pairs that are gone from the source.

    Deletes only pairs that `build` or `sync` added from a source of the same name.
    """
    from ..ingest.sync import delete_gone

    fill = Fill(origin, given, named=True)
    finish = partial(delete_gone, source=fill.options.source or fill.rows.name, max_share=max_delete)
    fill.do("sync", max_delete=max_delete, finish=finish)


def remove_command(
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of the pairs.")] = None,
    *,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="FILE", help="Also the ids in a .txt, one per line, or of a source's rows."),
    ] = None,
    memory: MemoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete pairs by id; unknown ids are no error. Needs no model."""
    from ..errors import InputError

    if not ids and source is None:
        raise InputError("nothing to remove: give ids, or --from a file of them")
    wanted = [*(ids or []), *(_ids_in(source, memory_settings(memory)) if source else [])]
    with closing(open_store(memory)) as store:
        removed, left = store.delete(wanted), store.count()
    say({"removed": removed, "pairs": left}, f"removed {removed:,} pairs; {left:,} are left", as_json)


def _ids_in(source: str, settings: Settings) -> list[str]:
    """Ids of a list, or of a source, also of rejected rows that have one.

    Raises:
        ConfigError: the source is the memory that they are removed from.
        DataError, MemoryStoreError: it cannot be read.
    """
    from ..data.files import read_lines
    from ..ingest.source import open_source

    if (path := Path(source)).suffix.lower() == ".txt":
        return read_lines(path)
    return [row.id for row in open_source(source, into=settings) if row.id is not None]
