"""What ``reco fit`` does: read, encode, split, fit, choose, measure once, write."""

from __future__ import annotations

import shutil
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..artifact import Artifact
from ..config import load_settings
from ..encode import Encoder
from ..errors import ArtifactError, MissingExtra
from ..evaluate.cached import CachedEncoder
from ..evaluate.study.config import versions
from ..types import Fingerprint
from .candidates import Way, candidates, composed
from .catalogue import Catalogue, read_catalogue, write_rejected
from .choose import Judged, choose, complementary, judge, policy_of
from .config import FitConfig
from .final import Baselines, best_baselines, final_lines, withdrawn
from .findings import findings_of
from .questions import ask
from .result import RESULT, CandidateResult, FitResult, SideResult
from .split import PARTS, Split, split
from .words import little_to_learn, notes, words

if TYPE_CHECKING:
    from ..train.loop import Fusions

MODEL = "model"


class Watch(Protocol):
    """Shows how far a run is."""

    def encoded(self, pairs: int) -> None:
        """So many more pairs were read and encoded."""
        ...

    def stage(self, what: str) -> None:
        """What is done next."""
        ...


class Silent:
    """Shows nothing."""

    def encoded(self, pairs: int) -> None:
        """Nothing."""

    def stage(self, what: str) -> None:
        """Nothing."""


@dataclass(frozen=True)
class _Decision:
    """All that validation says."""

    judged: list[Judged]
    chosen: Judged | None
    simple: Baselines


def run_fit(config: FitConfig, out: Path, watch: Watch | None = None) -> FitResult:
    """Fit a model to a catalogue; an interrupted run goes on when it is started again, and comes to the same.

    ``fit.json`` is written last: a folder that holds it is whole.

    Args:
        config: what to do.
        out: the run's folder.
        watch: is told how far it is.

    Raises:
        ConfigError: the folder holds a run of another configuration.
        ArtifactError: no model folder, or a damaged one.
        DataError: the catalogue cannot be read, or its groups are too few.
        MissingExtra: torch is not installed.
    """
    _check_torch()
    watch = watch or Silent()
    base = load_base(config.model)
    config.claim(out)
    _sweep(out)
    fingerprint = base.manifest.fingerprint
    encoder = CachedEncoder(Encoder(base, load_settings(model=base.folder)), fingerprint, out / "vectors")
    watch.stage("encode")
    catalogue = read_catalogue(
        config.source,
        encoder,
        group=config.group,
        max_error_rate=config.max_error_rate,
        progress=watch.encoded,
    )
    write_rejected(catalogue.rejected, out)
    parts = split(
        catalogue.pairs.ids, catalogue.groups, validation=config.validation, test=config.test, seed=config.seed
    )
    decision = _decide(config, catalogue, parts, fingerprint, out, watch)
    watch.stage("measure on the test part")
    return _finish(config, catalogue, parts, decision, base, out, watch)


def load_base(folder: str) -> Artifact:
    """The model folder whose encoder is kept.

    Raises:
        ArtifactError: there is none; the message says how to make one of an open_clip model.
    """
    try:
        return Artifact.load(folder)
    except ArtifactError as error:
        if Path(folder).exists():
            raise
        raise ArtifactError(
            f"{error} Of an open_clip model it is made first: reco export --model ViT-B-32 --pretrained "
            "laion2b_s34b_b79k --out my_model"
        ) from None


def _sweep(out: Path) -> None:
    """Remove what a killed run was writing, by the names that this package gives to what is not whole."""
    parts = [*out.glob(".*.part*"), *(out / "vectors").rglob(".*.part*")]
    for path in [*out.glob(f".{MODEL}.*"), *parts]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _check_torch() -> None:
    try:
        from ..train import refit  # noqa: F401 - all that it needs is needed at the end
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "torch", "train", "fitting and export") from error


def _decide(
    config: FitConfig, catalogue: Catalogue, parts: Split, fingerprint: Fingerprint, out: Path, watch: Watch
) -> _Decision:
    """Judge every candidate on validation."""
    if told := little_to_learn(catalogue, parts):
        warnings.warn(told, stacklevel=3)
    watch.stage("find neighbours")
    questions = ask(catalogue, parts, "validation", fingerprint, near=config.near_duplicate)
    judged: list[Judged] = []
    for way in candidates(config, catalogue, parts, fingerprint, out / "candidates"):
        watch.stage(f"judge {way.label}")
        judged.append(judge(questions, way, max_loss=config.max_loss, seed=config.seed))
    if both := complementary(judged, config.goal):
        judged.append(judge(questions, composed(*both), max_loss=config.max_loss, seed=config.seed))
    watch.stage("judge baselines")
    return _Decision(judged, choose(judged, config.goal), best_baselines(questions))


def _finish(
    config: FitConfig,
    catalogue: Catalogue,
    parts: Split,
    decision: _Decision,
    base: Artifact,
    out: Path,
    watch: Watch,
) -> FitResult:
    """Measure what was chosen, once, and write everything."""
    fingerprint, chosen = base.manifest.fingerprint, decision.chosen
    questions = ask(catalogue, parts, "test", fingerprint, near=config.near_duplicate)
    lines = final_lines(questions, chosen, decision.simple, seed=config.seed)
    sides = chosen.sides if chosen else ()
    lost = withdrawn(lines, sides)
    kept = tuple(side for side in sides if side not in lost)
    watch.stage("write the model")
    (out / RESULT).unlink(missing_ok=True)  # what it says of the model will no longer hold
    way = chosen.way if chosen and kept else decision.judged[0].way
    graphs = _write_model(base, way, policy_of(way, kept), config, out / MODEL)
    result = FitResult(
        config=config,
        source_digest=catalogue.digest,
        encoder=str(fingerprint),
        counts=_counts(catalogue, parts, len(questions.images)),
        candidates=tuple(_candidate(one) for one in decision.judged),
        chosen=chosen.way.label if chosen else None,
        refine=kept,
        withdrawn=lost,
        test=tuple(lines),
        words=words(decision.judged, chosen, lines, lost),
        notes=notes(catalogue, parts, config.group),
        graphs=graphs,
        versions=versions(),
    )
    _write_report(result, out)
    result.write(out)
    return result


def _write_model(base: Artifact, way: Way, policy: Any, config: FitConfig, out: Path) -> dict[str, str]:
    from ..train.refit import refit

    fusions: Fusions | None = way.fusions
    assert fusions is not None  # noqa: S101 - only baselines have none, and they are not chosen
    trained_on = f"reco fit {config.source}"
    refit(base, fusions, out, policy=policy, trained_on=trained_on, image_config=way.image_config)
    return {name: graph.sha256 for name, graph in Artifact.load(out).manifest.graphs.items()}


def _write_report(result: FitResult, out: Path) -> None:
    """The report; without its packages the findings alone, which `reco report` draws later."""
    from ..report import read_runs, write_report

    findings_of(result, out).write(out)
    try:
        write_report(read_runs([out]), out, title=f"Fit to {result.config.source}")
    except MissingExtra as error:
        warnings.warn(f"no report was drawn: {error}; then: reco report {out}", stacklevel=4)


def _counts(catalogue: Catalogue, parts: Split, asked: int) -> dict[str, int]:
    counts = {"pairs": len(catalogue), "groups": len(set(catalogue.groups)), "rejected": len(catalogue.rejected)}
    for part in PARTS:
        rows = parts.rows(part)
        counts |= {f"{part} pairs": len(rows), f"{part} groups": len({catalogue.groups[row] for row in rows})}
    return counts | {
        "validation pairs that ask": len(parts.queries("validation")),
        "test pairs that ask": asked,
        "groups of one pair": sum(count == 1 for count in Counter(catalogue.groups).values()),
    }


def _candidate(one: Judged) -> CandidateResult:
    sides = tuple(SideResult(side=v.side, gain=v.gain, loss=v.loss, helps=v.helps) for v in one.verdicts)
    return CandidateResult(name=one.way.name, k=one.way.k, gate=one.way.gate, sides=sides)
