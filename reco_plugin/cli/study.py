"""``reco eval study``: the whole evaluation as one run."""

from __future__ import annotations

import re
import shlex
import warnings
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError
from ..evaluate.study.config import StudyConfig
from ..options import RefineOptions
from ..run_config import flag_of
from .evaluate import Setup, encoding, open_setup
from .shared import Given, MemoryFlags, keeps, take_flags, takes


@takes(StudyConfig, Setup, RefineOptions, but=("model",))
def study_command(
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
            metavar="FILE", help="A run's config.json: repeat that run. Only --out and --cache may be given with it."
        ),
    ] = None,
    given: Given,
    cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder to cache frozen vectors.", show_default="in the run")
    ] = None,
) -> None:
    """Measure everything that refinement changes on a labelled set, into a folder for `reco report`.

    Main table, retrieval, ablations, baselines, harm, gate, cost and single cases. An interrupted run resumes; the same
    command, or --config with the run's config.json, gives the same figures. What it means: docs/study.md
    """
    digests: dict[str, str] = {}
    if config is not None:
        fields = StudyConfig.model_fields
        named = [flag_of(name, fields[name]) if name in fields else f"--{name}" for name in given]
        if more := [*(["source"] if source is not None else []), *named]:
            raise ConfigError(f"--config says everything already: leave out {', '.join(more)}")
        wanted, digests = StudyConfig.read(config)
    elif source is None:
        raise ConfigError("give a labelled set to study, or --config with a run's config.json")
    else:
        place = take_flags(MemoryFlags, given)
        wanted = StudyConfig.of(source=source, **({"memory": place.address} if place.address else {}), **given)
    _run(wanted, out or Path("runs") / _name(wanted.source), cache, digests)


def _run(config: StudyConfig, out: Path, cache: Path | None, before: dict[str, str]) -> None:
    """Open, prepare, measure, and print the summary."""
    from ..data import is_vectors
    from ..evaluate.study.run import bars, digests_of, run_study
    from ..evaluate.study.study import prepare, read_sets

    sets = read_sets(config)
    vectors = sets.items == 0 and (config.distractors is None or is_vectors(config.distractors))
    model = Path(config.models[0]) if config.models else None
    setup = Setup(model=model, memory=config.memory, memory_from=config.memory_from, fuser=config.fuser)
    places = f"{out} and {cache}" if cache else out
    kept = keeps(f"encoded vectors and finished sections stay in {places}; the same command resumes from there")
    with kept, open_setup(setup, config.refinement, vectors=vectors) as reco:
        sets = sets.with_templates(reco)
        with encoding(sets.items) as advance:
            study = prepare(reco, config, sets, out, watch=bars, cache=cache, progress=advance)
        now = digests_of(study)
        if changed := sorted(name for name, digest in before.items() if now.get(name) != digest):
            warnings.warn(f"not what the first run saw: {', '.join(changed)}; the figures will differ", stacklevel=2)
        findings = run_study(study)
    for line in findings.summary:
        typer.echo(line)
    again = ["reco", "eval", "study", "--config", str(out / "config.json"), "--out", f"{out}-again"]
    typer.echo(f"\nnext: {shlex.join(['reco', 'report', str(out)])}\nagain: {shlex.join(again)}")


def _name(source: str) -> str:
    """A folder's name from a source: its last part, without suffix, options and special characters."""
    last = source.partition("?")[0].rstrip("/").rpartition("/")[2].rpartition(":")[2]
    return re.sub(r"[^\w-]+", "-", last.removesuffix(".npz").removesuffix(".parquet")).strip("-") or "study"
