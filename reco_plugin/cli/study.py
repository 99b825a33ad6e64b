"""``reco eval study``: the whole evaluation as one run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..defaults import PAIRS_IN_RAM
from .errors import keeps, reports_errors
from .opened import FuserOption, FusionOption, GateOption, KOption, MemoryFromOption, MemoryOption, SearchOption

if TYPE_CHECKING:
    from ..evaluate.study.config import StudyConfig

_NOT_IN_A_FILE = ("config", "out", "cache")


@reports_errors
def study_command(
    context: typer.Context,
    source: Annotated[
        str | None,
        typer.Argument(
            help="Labelled images: a folder with one folder per class, or whatever else `reco eval zero-shot` takes.",
            show_default=False,
        ),
    ] = None,
    *,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the run.", show_default="runs/ and the source's name"),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A run's config.json: make that run again. Only --out and --cache may stand beside it."
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Model folder; repeat it for further trainings of the same encoder.",
            show_default="RECO_MODEL or ./triton_models, else the quickstart model",
        ),
    ] = None,
    control: Annotated[
        str | None, typer.Option(metavar="DIR", help="Model whose fusion was trained without retrieval, to compare.")
    ] = None,
    memory: MemoryOption = None,
    memory_from: MemoryFromOption = None,
    fuser: FuserOption = None,
    template: Annotated[
        list[str] | None,
        typer.Option(
            help="Prompt with {} for the class name; repeat it for more.", show_default="of the source, or of the model"
        ),
    ] = None,
    k: KOption = None,
    search: SearchOption = None,
    fusion: FusionOption = None,
    gate: GateOption = None,
    side: Annotated[
        Literal["image", "text", "both"] | None,
        typer.Option(help="What is refined outside of the main table.", show_default="the model's policy"),
    ] = None,
    dev: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="Labelled set to choose baselines on.", show_default="half of the classes"),
    ] = None,
    distractors: Annotated[
        str | None, typer.Option(metavar="PAIRS", help="Pairs of another domain, for a memory that cannot help.")
    ] = None,
    captions: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="Images with captions, for the section on retrieval.")
    ] = None,
    label_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Payload key that names a pair's class.", show_default="words of the caption"),
    ] = None,
    sections: Annotated[
        str | None,
        typer.Option(help="Some of main, retrieval, ablations, baselines, harm, gate, cost, cases, with commas."),
    ] = None,
    quick: Annotated[bool, typer.Option(help="Shorter curves and fewer bootstrap draws.")] = False,
    memory_limit: Annotated[
        int,
        typer.Option(min=1, help="Pairs held in RAM where many memories are needed; of a larger one, a random choice."),
    ] = PAIRS_IN_RAM,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random choice.")] = 0,
    cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where frozen vectors are kept.", show_default="in the run")
    ] = None,
) -> None:
    """Measure everything that refinement changes on a labelled set, into a folder that `reco report` draws.

    Main table, retrieval, ablations, baselines, harm, gate, cost and single cases. An interrupted run goes on where it
    was; the same command, or --config with the run's config.json, gives the same figures. What it means: docs/study.md
    """
    from ..errors import ConfigError
    from ..evaluate.study.config import StudyConfig, parse_sections

    if config is not None:
        if given := _given(context):
            raise ConfigError(f"--config says everything already: leave out {', '.join(given)}")
        wanted, digests = StudyConfig.read(config)
    elif source is None:
        raise ConfigError("give a labelled set to study, or --config with a run's config.json")
    else:
        chosen: dict[str, Any] = {"sections": parse_sections(sections)} if sections else {}
        digests = {}
        wanted = StudyConfig(
            source=source,
            memory=memory,
            memory_from=memory_from,
            models=tuple(model or ()),
            control=control,
            fuser=fuser,
            templates=tuple(template or ()),
            k=k,
            search=search,
            fusion=fusion,
            gate=gate,
            side=side,
            dev=dev,
            distractors=distractors,
            captions=captions,
            label_key=label_key,
            quick=quick,
            memory_limit=memory_limit,
            seed=seed,
            **chosen,
        )
    _run(wanted, out or Path("runs") / _name(wanted.source), cache, digests)


def _run(config: StudyConfig, out: Path, cache: Path | None, before: dict[str, str]) -> None:
    """Open, prepare, measure, tell."""
    import warnings

    from ..data import is_vectors
    from ..evaluate.study.prepare import prepare, read_sets
    from ..evaluate.study.run import bars, digests_of, run_study
    from .opened import Setup, encoding, opened

    sets = read_sets(config)
    vectors = sets.items == 0 and (config.distractors is None or is_vectors(config.distractors))
    setup = Setup(Path(config.models[0]) if config.models else None, config.memory, config.memory_from, config.fuser)
    places = f"{out} and {cache}" if cache else out
    kept = keeps(f"encoded vectors and finished sections stay in {places}; the same command goes on from there")
    with kept, opened(setup, config.refinement, vectors=vectors) as reco:
        sets = sets.with_templates(reco)
        with encoding(sets.items) as told:
            study = prepare(reco, config, sets, out, watch=bars, cache=cache, progress=told)
        now = digests_of(study)
        if changed := sorted(name for name, digest in before.items() if now.get(name) != digest):
            warnings.warn(f"not what the first run saw: {', '.join(changed)}; the figures will differ", stacklevel=2)
        findings = run_study(study)
    for line in findings.summary:
        typer.echo(line)
    typer.echo(f"\nnext: reco report {out}\nagain: reco eval study --config {out / 'config.json'} --out {out}-again")


def _given(context: typer.Context) -> list[str]:
    """What was written on the command line beside --config, --out and --cache."""
    return [
        name.replace("_", "-") if name == "source" else f"--{name.replace('_', '-')}"
        for name in context.params
        if name not in _NOT_IN_A_FILE and getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    ]


def _name(source: str) -> str:
    """A folder's name from a source: its last part, without ending, options and odd characters."""
    import re

    last = source.partition("?")[0].rstrip("/").rpartition("/")[2].rpartition(":")[2]
    return re.sub(r"[^\w-]+", "-", last.removesuffix(".npz").removesuffix(".parquet")).strip("-") or "study"
