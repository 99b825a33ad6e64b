"""``reco eval``: what refinement changes on your data, frozen against refined."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..request import RefineOptions
from .errors import reports_errors
from .flags import Given, take_flags, takes
from .opened import Evaluation, encoding, open_setup, print_result, with_cache

eval_app = typer.Typer(
    no_args_is_help=True,
    help="Measure what refinement changes on your data. File formats: docs/evaluation.md",
)


@eval_app.command(
    "zero-shot",
    epilog="Example: reco eval zero-shot photos/test --memory ./memory --template 'a photo of a {}, a type of bird.'"
    "\n\nOnly vectors, no model: reco eval zero-shot test.npz --memory-from pairs.npz",
)
@reports_errors
@takes(Evaluation, RefineOptions)
def zero_shot_command(
    source: Annotated[
        str,
        typer.Argument(help="A folder with one folder per class, named after it; or a table, .tar, .npz or .parquet."),
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
    from ..evaluate.encoding import count_items
    from ..evaluate.prompts import with_templates

    labelled = read_labelled(source, templates=template or (), unseen=unseen)
    asked = take_flags(Evaluation, given)
    vectors = count_items(labelled) == 0
    with open_setup(asked, given, vectors=vectors) as reco:
        labelled = with_templates(reco, labelled)
        with encoding(count_items(labelled)) as advance:
            result = zero_shot(with_cache(reco, asked.cache, vectors=vectors), labelled, progress=advance, **given)
        print_result(result, reco, asked)


@eval_app.command(
    "retrieval",
    epilog="Example: reco eval retrieval captions.jsonl --memory ./memory --k 10"
    "\n\nOnly vectors, no model: reco eval retrieval test.npz --memory-from pairs.npz",
)
@reports_errors
@takes(Evaluation, RefineOptions)
def retrieval_command(
    source: Annotated[str, typer.Argument(help="A table of captions, .tar shards, .npz or a folder with .txt files.")],
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
    asked = take_flags(Evaluation, given)
    raw = count_captioned(captioned)
    with open_setup(asked, given, vectors=not raw) as reco, encoding(raw) as advance:
        result = retrieval(with_cache(reco, asked.cache, vectors=not raw), captioned, progress=advance, **given)
        print_result(result, reco, asked)


@eval_app.command(
    "entities",
    epilog="Example: reco eval entities 'oven?split=val' --memory ./memory --cache .cache/vectors"
    "\n\nOnly vectors, no model: reco eval entities test.npz --memory-from pairs.npz",
)
@reports_errors
@takes(Evaluation, RefineOptions)
def entities_command(
    source: Annotated[
        str, typer.Argument(help="Folder with queries.jsonl and entities.jsonl, or vectors (.npz, .npy).")
    ],
    *,
    given: Given,
    template: Annotated[
        str | None, typer.Option(help="Prompt with {} for the name of an entity.", show_default="of the model")
    ] = None,
    refine_names: Annotated[
        bool, typer.Option("--refine-names", help="Also refine the names, as a set; for at most 50,000 of them.")
    ] = False,
) -> None:
    """Find the entity that an image shows among very many names: frozen, and the image refined.

    Prints top-1 and top-5 in per cent; if the source marks queries of unseen entities, also for seen and unseen ones
    with their harmonic mean. Names are encoded in portions; with --cache an interrupted run resumes. Questions that
    come with the images are not used.
    """
    from ..data import read_entities
    from ..evaluate import entities
    from ..evaluate.encoding import count_entities

    found = read_entities(source)
    asked, raw = take_flags(Evaluation, given), count_entities(found)
    with open_setup(asked, given, vectors=not raw) as reco, encoding(raw) as advance:
        result = entities(
            with_cache(reco, asked.cache, vectors=not raw),
            found,
            template=template,
            candidates=refine_names,
            progress=advance,
            **given,
        )
        print_result(result, reco, asked)
