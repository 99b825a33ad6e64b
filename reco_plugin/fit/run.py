"""Run ``reco fit``: read, encode, split, fit, choose, measure once, write."""

from __future__ import annotations

import shutil
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..api_encoder import load_model
from ..artifact import Artifact, Policy
from ..data.groups import check_column
from ..errors import ArtifactError, MissingExtra, importing
from ..files import whole_file
from ..ingest.source import open_source
from ..run_config import versions
from .candidates import PAPER, Candidate, Questions, ask, candidates, train_paper
from .catalogue import PARTS, Catalogue, HeldOut, check_groups, read_catalogue, sample, split
from .choose import (
    Judged,
    best_baselines,
    choose,
    final_lines,
    find_unconfirmed,
    judge,
    own_lines,
    policy_of,
)
from .config import RESULT, CandidateResult, FitConfig, FitResult, SideResult, TaskName
from .findings import among_own, findings_of, little_to_learn, notes, words

if TYPE_CHECKING:
    from ..models.train import Fusions


MODEL = "model"


class FitProgress(Protocol):
    """Shows the progress of a run."""

    def read(self, rows: int, rejected: int) -> None:
        """Count rows that were read and encoded; ``rejected`` is the total."""
        ...

    def stage(self, what: str, rows: int | None = None) -> None:
        """Name the next stage, with its number of rows where known."""
        ...


class Silent:
    """Shows nothing."""

    def read(self, rows: int, rejected: int) -> None:
        """Show nothing."""

    def stage(self, what: str, rows: int | None = None) -> None:
        """Show nothing."""


@dataclass(frozen=True)
class _Prepared:
    """The data to fit and to measure on."""

    base: Artifact
    catalogue: Catalogue
    parts: HeldOut


@dataclass(frozen=True)
class _Decision:
    """The outcome of validation."""

    judged: list[Judged]
    chosen: Judged | None
    simple: dict[TaskName, Candidate]


def run_fit(config: FitConfig, out: Path, watch: FitProgress | None = None) -> FitResult:
    """Fit a model to a catalogue; an interrupted run resumes when started again, with the same result.

    ``fit.json`` is written last: a folder with it is complete.

    Args:
        config: of the fit.
        out: the run's folder.
        watch: shows progress.

    Raises:
        ConfigError: the folder holds a run of another configuration.
        ArtifactError: no model folder, or a damaged one.
        DataError: the catalogue cannot be read, or its groups are too few.
        FingerprintMismatch: the catalogue is a memory of another encoder.
        MissingExtra: torch is not installed.
    """
    watch = watch or Silent()
    _check_torch()
    config.check(out)
    ready = _prepare(config, out, watch)
    paper = None
    if PAPER in config.kinds:
        watch.stage("train the paper's layer")
        paper = train_paper(config, ready.catalogue, ready.parts, ready.base.manifest.fingerprint, out)
    decision = _decide(config, ready, paper, watch)
    watch.stage("measure on the test part")
    return _finish(config, ready, decision, out, watch)


def _prepare(config: FitConfig, out: Path, watch: FitProgress) -> _Prepared:
    """Read, encode and split the catalogue."""
    base = load_base(config.model)
    rows = open_source(config.source, model=base.folder)  # before a folder is created for a missing source
    group = None if config.group is None else check_column(rows, config.group)
    watch.stage("count the groups")
    used = sample(rows, group, config.max_pairs)
    check_groups(rows, group, used, validation=config.validation, test=config.test, seed=config.seed)
    config.claim(out)
    _sweep(out)
    watch.stage("encode", rows.total if used is None else used.rows)
    catalogue = read_catalogue(
        rows,
        base,
        out,
        group=group,
        sample=used,
        max_error_rate=config.max_error_rate,
        progress=watch.read,
    )
    parts = split(
        catalogue.pairs.ids, catalogue.groups, validation=config.validation, test=config.test, seed=config.seed
    )
    return _Prepared(base, catalogue, parts)


def load_base(folder: str) -> Artifact:
    """Load the model folder with the encoder."""
    try:
        return load_model(folder)
    except ArtifactError as error:
        if Path(folder).exists():
            raise
        raise ArtifactError(
            f"{error} Of an open_clip model it is made first: reco export --model ViT-B-32 --pretrained "
            "laion2b_s34b_b79k --out my_model"
        ) from None


def _sweep(out: Path) -> None:
    """Remove incomplete files of a killed run, by their names."""
    for path in [*out.glob(f".{MODEL}.*"), *out.rglob(".*.part*")]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _check_torch() -> None:
    with importing(None, "train", "fitting and export"):
        from ..models.export import refit  # noqa: F401 - the export at the end needs all of it


def _decide(config: FitConfig, ready: _Prepared, paper: Fusions | None, watch: FitProgress) -> _Decision:
    """Measure every candidate on validation, and choose."""
    catalogue, parts, fingerprint = ready.catalogue, ready.parts, ready.base.manifest.fingerprint
    if note := little_to_learn(catalogue, parts):
        warnings.warn(note, stacklevel=3)
    watch.stage("find neighbours")
    questions = ask(catalogue, parts, "validation", fingerprint, near=config.near_duplicate)
    judged: list[Judged] = []
    for candidate in candidates(config, fingerprint.dimension, paper):
        watch.stage(f"judge {candidate.label}")
        judged.append(judge(questions, candidate, max_loss=config.max_loss, seed=config.seed))
    watch.stage("judge baselines")
    chosen = choose(judged, config.goal)
    return _Decision(judged, chosen, best_baselines(questions, chosen))


def _finish(config: FitConfig, ready: _Prepared, decision: _Decision, out: Path, watch: FitProgress) -> FitResult:
    """Measure the choice once, and write everything."""
    base, catalogue, parts = ready.base, ready.catalogue, ready.parts
    fingerprint, chosen = base.manifest.fingerprint, decision.chosen
    questions = ask(catalogue, parts, "test", fingerprint, near=config.near_duplicate)
    lines = final_lines(questions, chosen, decision.simple, seed=config.seed)
    sides = chosen.sides if chosen else ()
    lost = find_unconfirmed(lines, sides)
    kept = tuple(side for side in sides if side not in lost)
    watch.stage("write the model")
    (out / RESULT).unlink(missing_ok=True)  # it describes the old model
    candidate = chosen.candidate if chosen and kept else decision.judged[0].candidate
    graphs = write_model(base, candidate, policy_of(candidate, kept), config, out / MODEL)
    lines += own_lines(questions, candidate, seed=config.seed)
    result = FitResult(
        config=config,
        source_digest=catalogue.digest,
        encoder=str(fingerprint),
        counts=counts_of(catalogue, parts, len(questions.tasks["image->text"])),
        candidates=tuple(candidate_of(one) for one in decision.judged),
        chosen=chosen.candidate.label if chosen else None,
        refine=kept,
        withdrawn=lost,
        test=tuple(lines),
        words=words(decision.judged, chosen, lines, lost),
        notes=(*notes(catalogue, parts, config), *among_own(lines), *_check(questions, candidate.k)),
        graphs=graphs,
        versions=versions(),
    )
    write_report_of(result, out)
    result.write(out)
    return result


def write_model(base: Artifact, candidate: Candidate, policy: Policy, config: FitConfig, out: Path) -> dict[str, str]:
    """Write the model folder; returns the sha256 of each graph by its name."""
    from ..models.export import refit

    trained_on = f"reco fit {config.source}"
    refit(base, candidate.fusions, out, policy=policy, trained_on=trained_on)
    return {name: graph.sha256 for name, graph in Artifact.load(out).manifest.graphs.items()}


def _check(questions: Questions, k: int) -> list[str]:
    """What the memory of the test part says of itself."""
    calibration = questions.memory.at(k).calibration
    if calibration is None or calibration.check is None:
        return []
    return [f"The memory's self-check: {calibration.check}: {calibration.check.meaning}."]


def write_report_of(result: FitResult, out: Path) -> None:
    """The report; without its package the findings alone."""
    from ..report import render_page

    findings = findings_of(result, out)
    findings.write(out)
    try:
        page = render_page(findings, f"Fit to {result.config.source}")
    except MissingExtra as error:
        warnings.warn(f"no report was drawn: {error}; then run the same command again", stacklevel=4)
        return
    with whole_file(out / "report.html") as part:
        part.write_text(page, encoding="utf-8")


def counts_of(catalogue: Catalogue, parts: HeldOut, asked: int) -> dict[str, int]:
    """Count pairs, groups and queries; ``asked`` are those of the test part."""
    counts = {"pairs": len(catalogue), "groups": len(set(catalogue.groups)), "rejected": catalogue.rejected}
    for part in PARTS:
        rows = parts.rows(part)
        counts |= {f"{part} pairs": len(rows), f"{part} groups": len({catalogue.groups[row] for row in rows})}
    return counts | {
        "validation pairs that ask": len(parts.queries("validation")),
        "test pairs that ask": asked,
        "groups of one pair": sum(count == 1 for count in Counter(catalogue.groups).values()),
    }


def candidate_of(one: Judged) -> CandidateResult:
    """The validation result of a candidate."""
    sides = tuple(SideResult(side=v.side, gain=v.gain, loss=v.loss, helps=v.helps) for v in one.verdicts)
    return CandidateResult(name=one.candidate.name, k=one.candidate.k, gate=one.candidate.gate, sides=sides)
