"""Shared by the evaluations: options, the model with its memory, progress, and printing a result."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from ..defaults import NEIGHBOURS
from ..request import modes_of
from ..types import FuserName
from .options import JsonOption, ModelOption, existing_memory

if TYPE_CHECKING:
    from ..reco import Reco
    from ..refine import Refiner
    from ..score import Refines


@dataclass(frozen=True)
class Setup:
    """The model and memory to evaluate."""

    model: ModelOption = None
    memory: Annotated[
        str | None,
        typer.Option(
            help="Memory to retrieve from: a folder, or the URL of a Qdrant server.", show_default="RECO_MEMORY"
        ),
    ] = None
    memory_from: Annotated[
        str | None,
        typer.Option(
            metavar="PAIRS", help="Build a memory in RAM for this run: a table, folder, .tar, .npz or .parquet."
        ),
    ] = None
    fuser: Annotated[
        FuserName | None,
        typer.Option(help="reco: the closed form. paper: the attention layer.", show_default="of the model"),
    ] = None


@dataclass(frozen=True)
class Evaluation(Setup):
    """The setup, the cache, and the output."""

    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder to cache frozen vectors of images and texts, so a second run encodes nothing."
        ),
    ] = None
    as_json: JsonOption = False
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the result as JSON.")] = None


class Result(Protocol):
    """The result of any evaluation."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-like; shares are from 0 to 1."""
        ...

    def render(self) -> str:
        """A plain text table."""
        ...


@contextmanager
def open_setup(setup: Setup, options: Mapping[str, Any], *, vectors: bool) -> Iterator[Reco | Refiner]:
    """Open the model with its memory; only a refiner if everything is vectors and no model was named.

    Args:
        setup: model and memory.
        options: k, search, fusion and gate, if given.
        vectors: whether the source holds vectors, so that no encoder is needed.

    Raises:
        ConfigError: two memories, or an invalid setting.
        ArtifactError: a missing model folder.
        DataError: pairs that cannot be read.
    """
    from ..config import load_settings
    from ..data import is_vectors, read_pairs, read_records
    from ..errors import ArtifactError, ConfigError
    from ..reco import Reco
    from ..refine import refiner_for_vectors
    from ..retrieve import Retrieval

    if setup.memory and setup.memory_from:
        raise ConfigError("give --memory or --memory-from, not both")
    settings = load_settings(fuser=setup.fuser, **modes_of(options))
    pairs = setup.memory_from
    vectors_only = vectors and pairs is not None and is_vectors(pairs)
    unnamed = setup.model is None and "model" not in settings.model_fields_set  # ./triton_models is not
    needs_none = settings.fuser == "reco" or (unnamed and settings.fuser is None)
    if vectors_only and pairs is not None and setup.model is None and needs_none:
        how = Retrieval(settings.k or NEIGHBOURS, settings.search, settings.fusion)
        caution = settings.caution or "balanced"
        yield refiner_for_vectors(read_records(pairs), how=how, gate=settings.gate is not False, caution=caution)
        return
    stored = existing_memory(setup.memory) if setup.memory else None
    in_ram: dict[str, Any] = {"memory": ":memory:", "memory_kind": "exact"} if pairs else {"memory": stored}
    try:
        if vectors_only and setup.model is None and settings.falls_back:
            raise ArtifactError("no model was named: --model gives the one with the attention layer.")
        model = Reco.open(setup.model, fuser=setup.fuser, on_memory_failure="fail", **in_ram)
    except ArtifactError as error:
        hint = " Vectors alone need no model: --fuser reco without --model." if vectors_only else ""
        raise ArtifactError(f"{error}{hint}") from None
    with model as reco:
        if pairs:
            reco.memory.add(read_pairs(pairs), progress=True)
        if len(reco.memory) == 0:
            typer.echo("warning: the memory is empty, so nothing is refined: give --memory or --memory-from", err=True)
        yield reco


def with_cache(reco: Reco | Refiner, cache: Path | None, *, vectors: bool) -> Refines:
    """The same with a cache of encoded vectors, if a folder is given.

    Raises:
        ConfigError: a folder is given but the source holds vectors, so that nothing would be cached.
    """
    from ..errors import ConfigError
    from ..evaluate.encoding import CachingReco
    from ..reco import Reco

    if cache is None:
        return reco
    if vectors or not isinstance(reco, Reco):
        raise ConfigError("--cache keeps what was encoded, and the source holds vectors already: leave it out")
    return CachingReco(reco, cache)


@contextmanager
def encoding(total: int) -> Iterator[Any]:
    """Show a progress bar over ``total`` items, if any; yields the function that advances it."""
    from ..progress import progress_bar

    with progress_bar(total=total, desc="encode", unit="item", disable=not total) as bar:
        yield bar.update


def print_result(result: Result, reco: Reco | Refiner, asked: Evaluation) -> None:
    """Print a result as a table or as JSON, with its setup, and write the JSON to --out.

    Raises:
        DataError: it cannot be written.
    """
    pairs = reco.memory.store.count()
    named = {"model": asked.model, "memory": asked.memory or asked.memory_from, "fuser": asked.fuser}
    setup = {name: str(value) for name, value in named.items() if value} | {"pairs": pairs}
    text = json.dumps(result.to_dict() | {"setup": setup}, indent=2, ensure_ascii=False)
    if asked.out is not None:
        from ..files import whole_file

        with whole_file(asked.out) as part:
            part.write_text(text + "\n", encoding="utf-8")
    typer.echo(text if asked.as_json else f"{result.render()}\nmemory: {pairs:,} pairs")
