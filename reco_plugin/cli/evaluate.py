"""``reco eval``: what refinement changes on your data, frozen against refined."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config import load_settings
from ..errors import ArtifactError, ConfigError
from ..files import whole_file
from ..options import RefineOptions, defaults_of
from ..types import FuserName
from ..values import counted
from .shared import (
    DEFAULT_MEMORY,
    Given,
    JsonOption,
    OpenOptions,
    check_place,
    print_result,
    reco_to_read,
    take_flags,
    takes,
)

if TYPE_CHECKING:
    from ..evaluate import RetrievalResult, ZeroShotResult
    from ..reco import Reco
    from ..refine import Refiner
    from ..score import Refines


@dataclass(frozen=True)
class Setup(OpenOptions):
    """The model and memory to evaluate."""

    memory: Annotated[
        str | None,
        typer.Option(
            help="Memory to retrieve from: a folder, or the URL of a Qdrant server, as in "
            "'grpc://host:6334?collection=shop'.",
            show_default="RECO_MEMORY or ./memory, if it is there",
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
class _Evaluation(Setup):
    """The setup, the cache, and the output."""

    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder to cache frozen vectors of images and texts, so a second run encodes nothing."
        ),
    ] = None
    as_json: JsonOption = False
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the result as JSON.")] = None

    def __post_init__(self) -> None:
        """Look at the place of the result before hours of encoding."""
        check_place(self.out)


@takes(_Evaluation, RefineOptions)
def zero_shot_command(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder of one folder per class, of its name; a table, as in 'shop.csv?image=photo&label=kind'; "
            ".tar, .npz or .parquet."
        ),
    ],
    *,
    given: Given,
    template: Annotated[
        list[str] | None,
        typer.Option(
            help="Prompt with {} for the class name; repeat it for more.", show_default="of the source, or of the model"
        ),
    ] = None,
    unseen: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Names of the unseen classes, one per line: also report seen and unseen classes.",
            show_default="of the source",
        ),
    ] = None,
) -> None:
    """Classify labelled images by the nearest class prompt: frozen, images refined, prompts refined, both.

    Prints top-1 and top-5 in per cent, and the gain in top-1 with its 95 % interval; with unseen classes, also these
    among themselves, the seen ones among themselves, and both in one with their harmonic mean. An image that is also
    in the memory, with the same id, does not retrieve its own pair.
    """
    from ..data import read_labelled
    from ..evaluate import zero_shot
    from ..evaluate.encoding import count_items, with_templates

    labelled = read_labelled(source, templates=template or (), unseen=unseen)
    asked = take_flags(_Evaluation, given)
    vectors = count_items(labelled) == 0
    with open_setup(asked, given, vectors=vectors) as reco:
        labelled = with_templates(reco, labelled)
        with encoding(count_items(labelled)) as advance:
            result = zero_shot(_with_cache(reco, asked.cache, vectors=vectors), labelled, progress=advance, **given)
        _print_result(result, reco, asked)


@takes(_Evaluation, RefineOptions)
def retrieval_command(
    source: Annotated[
        str,
        typer.Argument(
            help="A table of captions, as in 'shop.csv?id=sku&image=photo&text=title'; .tar shards, .npz or a "
            "folder with .txt files."
        ),
    ],
    *,
    given: Given,
) -> None:
    """Search images by captions and captions by images: frozen, the query refined, the index refined, both.

    Prints recall at 1, 5 and 10 and nDCG@10 in per cent, and the gain in recall at 1 with its 95 % interval. "query"
    leaves the index as it is, as for an existing index.
    """
    from ..data import read_retrieval
    from ..evaluate import retrieval
    from ..evaluate.encoding import count_captioned

    captioned = read_retrieval(source)
    asked = take_flags(_Evaluation, given)
    raw = count_captioned(captioned)
    with open_setup(asked, given, vectors=not raw) as reco, encoding(raw) as advance:
        cached = _with_cache(reco, asked.cache, vectors=not raw)
        result = retrieval(cached, captioned, progress=advance, **given)
        _print_result(result, reco, asked)


@contextmanager
def open_setup(setup: Setup, options: Mapping[str, Any], *, vectors: bool) -> Iterator[Reco | Refiner]:
    """Open the model with its memory; only a refiner if everything is vectors and no model was named.

    ``vectors`` tells whether the source holds vectors, so that no encoder is needed; ``options`` are those of refining.
    """
    from ..data import is_vectors, read_records
    from ..refine import refiner_for_vectors

    if setup.memory and setup.memory_from:
        raise ConfigError("give --memory or --memory-from, not both")
    settings = load_settings(**{**defaults_of(options), "fuser": setup.fuser or options.get("fuser")})
    pairs = setup.memory_from
    vectors_only = vectors and pairs is not None and is_vectors(pairs)
    unnamed = setup.model is None and "model" not in settings.model_fields_set  # ./triton_models is not
    set_ = settings.refining
    needs_none = set_.get("fuser") == "reco" or (unnamed and "fuser" not in set_)
    if vectors_only and pairs is not None and setup.model is None and needs_none:
        yield refiner_for_vectors(read_records(pairs), **set_)
        return
    if pairs:
        place = load_settings(memory=":memory:")
    else:
        named = setup.memory is not None or "memory" in load_settings().model_fields_set
        place = setup.existing if named or Path(DEFAULT_MEMORY).exists() else load_settings()
    try:
        if vectors_only and setup.model is None and settings.falls_back:
            raise ArtifactError("no model was named: --model gives the one with the attention layer.")
        model = reco_to_read(setup.model, place, fuser=setup.fuser, on_memory_failure="fail")
    except ArtifactError as error:
        hint = " Vectors alone need no model: --fuser reco without --model." if vectors_only else ""
        raise ArtifactError(f"{error}{hint}") from None
    with model as reco:
        if pairs:
            _fill(reco, pairs)
        if len(reco.memory) == 0:
            typer.echo("warning: the memory is empty, so nothing is refined: give --memory or --memory-from", err=True)
        yield reco


def _fill(reco: Reco, pairs: str) -> None:
    """Add the pairs of a source to the memory in RAM."""
    from ..data.opening import open_rows, pairs_of
    from ..data.same_encoder import SameEncoder

    rows = open_rows(pairs)
    same = SameEncoder(reco.encoder, str(reco.manifest.fingerprint), rows)
    reco.memory.add(same.watch(pairs_of(rows)), progress=True)
    if same.misses:
        typer.echo(same.note, err=True)


def _with_cache(reco: Reco | Refiner, cache: Path | None, *, vectors: bool) -> Refines:
    """The same with a cache of encoded vectors, if a folder is given."""
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


def _print_result(result: ZeroShotResult | RetrievalResult, reco: Reco | Refiner, asked: _Evaluation) -> None:
    """Print a result as a table or as JSON, with its setup, and write the JSON to --out."""
    pairs = reco.memory.store.count()
    named = {"model": asked.model, "memory": asked.memory or asked.memory_from, "fuser": asked.fuser}
    setup = {name: str(value) for name, value in named.items() if value} | {"pairs": pairs}
    told = result.to_dict() | {"setup": setup}
    ranks = told.pop("ranks", None)
    text = json.dumps(told, indent=2, ensure_ascii=False)
    if ranks:  # columns of numbers, which would be a line each
        text = f'{text[:-2]},\n  "ranks": {json.dumps(ranks, ensure_ascii=False)}\n}}'
    if asked.out is not None:
        with whole_file(asked.out) as part:
            part.write_text(text + "\n", encoding="utf-8")
    print_result(text if asked.as_json else f"{result.render()}\nmemory: {counted(pairs, 'pair')}")
