"""``reco eval``: what refinement changes on your data, frozen against refined."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config import FuserName
from ..types import Mode
from .errors import reports_errors
from .options import JsonOption, ModelOption, existing_memory

if TYPE_CHECKING:
    from ..evaluate import RetrievalResult, ZeroShotResult
    from ..reco import Reco
    from ..refine import Refiner

_K = 10  # neighbours where no model says otherwise

eval_app = typer.Typer(
    no_args_is_help=True,
    help="Measure what refinement changes on your data. File formats: docs/evaluation.md",
)

MemoryOption = Annotated[str | None, typer.Option(help="Memory to retrieve from: folder or URL of a Qdrant server.")]
MemoryFromOption = Annotated[
    str | None,
    typer.Option(metavar="PAIRS", help="Build a memory in RAM for this run: a table, folder, .tar, .npz or .parquet."),
]
KOption = Annotated[int | None, typer.Option("--k", min=1, help="Neighbours per query.", show_default="of the model")]
SearchOption = Annotated[Mode | None, typer.Option(help="uni: search the query's own modality. cross: the other.")]
FusionOption = Annotated[Mode | None, typer.Option(help="cross: fuse the other modality's vectors. uni: the own.")]
GateOption = Annotated[bool | None, typer.Option("--gate/--no-gate", help="Weigh neighbours by calibrated trust.")]
FuserOption = Annotated[
    FuserName | None, typer.Option(help="model: the fusion in the model folder. training-free: no learned weights.")
]
OutOption = Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the result as JSON.")]


@dataclass(frozen=True)
class _Setup:
    """What is evaluated."""

    model: Path | None
    memory: str | None
    memory_from: str | None
    fuser: FuserName | None


@eval_app.command(
    "zero-shot",
    epilog="Example: reco eval zero-shot photos/test --memory ./memory --template 'a photo of a {}, a type of bird.'"
    "\n\nOnly vectors, no model: reco eval zero-shot test.npz --memory-from pairs.npz --fuser training-free",
)
@reports_errors
def zero_shot_command(
    source: Annotated[str, typer.Argument(help="Folder with one folder per class, .tar shards, .npz or .parquet.")],
    *,
    model: ModelOption = None,
    memory: MemoryOption = None,
    memory_from: MemoryFromOption = None,
    template: Annotated[
        list[str] | None,
        typer.Option(help="Prompt with {} for the class name; repeat it for more.", show_default="of the source"),
    ] = None,
    k: KOption = None,
    search: SearchOption = None,
    fusion: FusionOption = None,
    gate: GateOption = None,
    fuser: FuserOption = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Classify labelled images by the nearest class prompt: frozen, images refined, prompts refined, both.

    Prints top-1 and top-5 in per cent, and the gain in top-1 with its 95 % interval. An image that is in the
    memory itself, with the same id, does not find its own pair.
    """
    from ..data import read_labelled
    from ..evaluate import zero_shot
    from ..evaluate.frozen import count_items

    labelled = read_labelled(source, templates=template or ())
    options: dict[str, Any] = {"k": k, "search": search, "fusion": fusion, "gate": gate}
    setup = _Setup(model, memory, memory_from, fuser)
    with _opened(source, setup, options) as reco, _progress(count_items(labelled)) as told:
        _print(zero_shot(reco, labelled, progress=told, **options), _describe(reco, setup), as_json, out)


@eval_app.command(
    "retrieval",
    epilog="Example: reco eval retrieval captions.jsonl --memory ./memory --k 10"
    "\n\nOnly vectors, no model: reco eval retrieval test.npz --memory-from pairs.npz --fuser training-free",
)
@reports_errors
def retrieval_command(
    source: Annotated[str, typer.Argument(help="A table of captions, .tar shards, .npz or a folder with .txt files.")],
    *,
    model: ModelOption = None,
    memory: MemoryOption = None,
    memory_from: MemoryFromOption = None,
    k: KOption = None,
    search: SearchOption = None,
    fusion: FusionOption = None,
    gate: GateOption = None,
    fuser: FuserOption = None,
    as_json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Search images by captions and captions by images: frozen, the query refined, both sides refined.

    Prints recall at 1, 5 and 10 in per cent. "query" leaves the index as it is, which is the case of an index that
    exists already.
    """
    from ..data import read_retrieval
    from ..evaluate import retrieval
    from ..evaluate.frozen import count_captioned

    captioned = read_retrieval(source)
    options: dict[str, Any] = {"k": k, "search": search, "fusion": fusion, "gate": gate}
    setup = _Setup(model, memory, memory_from, fuser)
    with _opened(source, setup, options) as reco, _progress(count_captioned(captioned)) as told:
        _print(retrieval(reco, captioned, progress=told, **options), _describe(reco, setup), as_json, out)


@contextmanager
def _opened(source: str, setup: _Setup, options: dict[str, Any]) -> Iterator[Reco | Refiner]:
    """The model with its memory; only a refiner where everything is vectors and the fusion needs no model."""
    from ..config import load_settings
    from ..data import is_vectors, read_pairs, read_records
    from ..errors import ArtifactError, ConfigError
    from ..reco import Reco
    from ..refine import refiner_for_vectors
    from ..retrieve import Retrieval

    if setup.memory and setup.memory_from:
        raise ConfigError("give --memory or --memory-from, not both")
    settings = load_settings(fuser=setup.fuser, **options)
    pairs = setup.memory_from
    vectors_only = is_vectors(source) and pairs is not None and is_vectors(pairs)
    if vectors_only and pairs is not None and setup.model is None and settings.fuser == "training-free":
        how = Retrieval(settings.k or _K, settings.search, settings.fusion)
        yield refiner_for_vectors(read_records(pairs), how=how, gate=settings.gate is not False)
        return
    stored = existing_memory(setup.memory) if setup.memory else None
    in_ram: dict[str, Any] = {"memory": ":memory:", "memory_kind": "exact"} if pairs else {"memory": stored}
    try:
        opened = Reco.open(setup.model, fuser=setup.fuser, **in_ram)
    except ArtifactError as error:
        hint = " Vectors alone need no model: --fuser training-free without --model." if vectors_only else ""
        raise ArtifactError(f"{error}{hint}") from None
    with opened as reco:
        if pairs:
            reco.memory.add(read_pairs(pairs), progress=True)
        if len(reco.memory) == 0:
            typer.echo("warning: the memory is empty, so nothing is refined: give --memory or --memory-from", err=True)
        yield reco


@contextmanager
def _progress(total: int) -> Iterator[Any]:
    from tqdm import tqdm

    with tqdm(total=total, desc="encode", unit="item", disable=None if total else True) as bar:
        yield bar.update


def _describe(reco: Reco | Refiner, setup: _Setup) -> dict[str, Any]:
    named = {"model": setup.model, "memory": setup.memory or setup.memory_from, "fuser": setup.fuser}
    return {name: str(value) for name, value in named.items() if value} | {"pairs": reco.memory.store.count()}


def _print(result: ZeroShotResult | RetrievalResult, setup: dict[str, Any], as_json: bool, out: Path | None) -> None:
    text = json.dumps(result.to_dict() | {"setup": setup}, indent=2, ensure_ascii=False)
    if out is not None:
        from ..data.files import whole_file

        with whole_file(out) as part:
            part.write_text(text + "\n", encoding="utf-8")
    if as_json:
        typer.echo(text)
    else:
        typer.echo(result.render())
        typer.echo(f"memory: {setup['pairs']:,} pairs")
