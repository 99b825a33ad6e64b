"""Commands that fit, train and export models."""

from __future__ import annotations

import json
import shlex
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config import load_settings
from ..data.source import parse_source
from ..errors import ConfigError, importing
from ..fit.config import FitConfig
from ..ingest.source import is_memory
from ..train.recipe import ExportOptions, Recipe, Serving
from .shared import (
    Given,
    JsonOption,
    MemoryFlags,
    ModelOption,
    OptionOption,
    keeps,
    print_result,
    reports_errors,
    say,
    take_flags,
    takes,
)

if TYPE_CHECKING:
    from ..fit import FitResult

_TORCH = partial(importing, None, "train", "training and export")


@dataclass(frozen=True)
class _MemoryOption:
    """Kept in the recipe as part of the memory's address."""

    option: OptionOption = None


@reports_errors
@takes(Recipe, _MemoryOption)
def train_command(
    source: Annotated[str, typer.Argument(help="Pairs to train on: .csv/.tsv/.jsonl, folder, .tar, .npz or .parquet.")],
    *,
    given: Given,
    out: Annotated[Path, typer.Option(help="Folder of the run: cache, checkpoint, TensorBoard log, fusion.pt.")],
    processes: Annotated[
        int, typer.Option(min=1, help="Processes that share each batch, each with a GPU for --device cuda.")
    ] = 1,
) -> None:
    """Train the paper's layer on your pairs, around a frozen encoder. An interrupted run resumes when started again.

    The closed form, which refines by default, needs no training. The encoder's vectors are cached in the run's folder.
    Each pair's own memory entry and near-duplicates of its image are hidden from its queries: otherwise the fusion
    would learn to copy its caption.
    """
    with _TORCH():
        from ..train import run
    place = MemoryFlags(given.get("memory"), given.get("collection"), take_flags(_MemoryOption, given).option)
    if place.option and not place.memory:
        raise ConfigError("--option is of a memory: give it, too, as in --memory grpc://localhost:6334")
    given["collection"] = _collection(place)
    given["memory"] = MemoryFlags(place.memory, None, place.option).address
    recipe = Recipe.of(source=source, **given)
    kept = keeps(f"encoded vectors and the last checkpoint stay in {out}; the same command resumes from there")
    with kept, _TORCH():
        joined = run.begin(recipe, out, processes)
        run.train(recipe, out, joined)
    if not joined.leads:
        return
    weights = f" --pretrained {recipe.pretrained}" if recipe.pretrained else ""
    typer.echo(
        f"wrote {out / 'fusion.pt'}; curves: tensorboard --logdir {out}\n"
        f"next: reco export --model {recipe.model}{weights} --fusion {out} --out my_model"
    )


def _collection(place: MemoryFlags) -> str | None:
    """The collection to retrieve from, for the recipe; None if the memory has none."""
    served = place.memory is not None and "://" in place.memory
    if place.collection is not None and not served:
        raise ConfigError("--collection is of a Qdrant server: give its URL, --memory grpc://localhost:6334")
    return place.settings.memory_collection if served else None


@reports_errors
@takes(ExportOptions, Serving)
def export_command(
    *,
    given: Given,
    out: Annotated[Path, typer.Option(help="Model folder to write.")],
    as_json: JsonOption = False,
) -> None:
    """Write a model folder: ONNX graphs, tokenizer, manifest, Triton configuration.

    Every graph is first compared with torch, on images and texts: least cosine and top-10 overlap. If one differs by
    more than its precision allows, nothing is written.
    """
    serving, options = take_flags(Serving, given), ExportOptions.of(**given)
    with _TORCH():
        from ..train import parity
        from ..train.export import export_model

        parities = export_model(options, out, serving)
    if as_json:
        print_result(json.dumps([vars(found) for found in parities], indent=2))
        return
    typer.echo("\n".join(parity.table(parities)))
    if options.check is None:
        typer.echo("compared on drawn samples; on your own images and captions: --check SOURCE")
    typer.echo(f"wrote {out}; next: reco doctor --model {out}")


_COLUMNS = 100
_WAYS = {"frozen": "frozen CLIP", "baseline": "best baseline", "chosen": "chosen"}


@reports_errors
@takes(FitConfig)
def fit_command(
    source: Annotated[
        str,
        typer.Argument(
            help="Catalogue: .csv/.tsv/.jsonl, folder, .tar, .npz, .parquet, or a memory, as for `memory build`.",
            show_default=False,
        ),
    ],
    *,
    out: Annotated[Path, typer.Option(help="Folder of the run: cache, report, model.", show_default=False)],
    model: ModelOption = None,
    given: Given,
    processes: Annotated[
        int, typer.Option(min=1, help="paper: processes that share each batch, each with a GPU for --device cuda.")
    ] = 1,
    as_json: JsonOption = False,
) -> None:
    """Fit a model to your catalogue, measure on held-out groups whether it helps, and write the model.

    CLIP stays as it is, so memories and indexes stay valid. What is refined, with which fusion, k and caution, is
    chosen on a validation part and measured once on a test part; if nothing helps, the model refines nothing and the
    command says so. An interrupted run resumes when started again. What it means: docs/fit.md

    For an open_clip model, first: reco export --model ViT-B-32 --pretrained laion2b_s34b_b79k --out my_model
    """
    from ..fit import begin, follow, run_fit

    config = FitConfig.of(source=source, model=str(load_settings(model=model).model), **given)
    with keeps(f"what was encoded and trained so far stays in {out}; the same command resumes from there"):
        joined = begin(config, out, processes)
        if not joined.leads:
            follow(config, out, joined)
            return
        with closing(_Bars()) as watch:
            result = run_fit(config, out, watch, joined)
    say(result.to_dict(), render(result, out), as_json)


def render(result: FitResult, out: Path) -> str:
    """The figures of the test part, the decision, and what to do next."""
    from ..evaluate.intervals import points
    from ..evaluate.results import percent, table

    task = max((len(line.task) for line in result.test), default=0)
    header = ["test part", *(f"R@{k} %" for k in (1, 5, 10)), "gain in R@1, 95 % interval"]
    rows = [
        [
            f"{line.task if line.way == 'frozen' else '':<{task}}  {_WAYS[line.way]}",
            *(percent(share) for share in line.recall.values()),
            points(line.gain) if line.gain else "",
        ]
        for line in result.test
    ]
    sentences = [*_legend(result), "", *result.words, *result.notes]
    lines = [table(header, rows), "", *map(_wrap, sentences), ""]
    report = out / "report.html"
    if report.is_file():
        lines.append(f"report: {report}")
    if not result.refine:
        lines.append("next: nothing to build or serve anew: the model that you have, without refinement, is as good")
        return "\n".join(lines)
    return "\n".join([*lines, *_next(result.config.source, out / "model")])


def _wrap(sentence: str) -> str:
    return fill(sentence, _COLUMNS, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _legend(result: FitResult) -> Iterator[str]:
    """The best baseline, and the choice; per task if they differ."""
    for way, name in _WAYS.items():
        tasks = defaultdict[str, list[str]](list)
        for line in result.test:
            if line.way == way != "frozen":
                tasks[line.label].append(line.task)
        for label, of in tasks.items():
            yield f"{name}, {', '.join(of)}: {label}" if len(tasks) > 1 else f"{name}: {label}"


def _next(source: str, model: Path) -> Iterator[str]:
    """The next commands; a folder that is a memory already needs no building."""
    ready = Path(source).is_dir() and is_memory(parse_source(source))
    memory, prefix = source if ready else "./memory", "next: "
    if not ready:
        yield prefix + shlex.join(["reco", "memory", "build", source, "--model", str(model), "--memory", memory])
        prefix = " " * len(prefix)
    yield prefix + shlex.join(["reco", "serve", "--model", str(model), "--memory", memory])


class _Bars:
    """A bar while rows are encoded, then the name of each stage."""

    def __init__(self) -> None:
        from ..progress import progress_bar

        self._bar: Any = progress_bar(unit="row")

    def close(self) -> None:
        """Write the final state."""
        self._bar.close()

    def read(self, rows: int, rejected: int) -> None:
        """Advance the bar."""
        self._bar.set_postfix(rejected=rejected, refresh=False)
        self._bar.update(rows)

    def stage(self, what: str, rows: int | None = None) -> None:
        """Name the next stage."""
        self._bar.set_description_str(what, refresh=False)
        self._bar.reset(rows or 0)
