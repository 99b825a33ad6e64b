"""Run a study: read, encode, measure section by section, write the findings. Finished parts are not repeated."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ...files import as_data_error, digest_arrays, digest_records, digest_texts, whole_file
from ...run_config import versions
from ..encoding import prompts_of
from ..findings import Case, Findings, Frozen, Section
from ..task import Task
from .config import SectionName
from .sections.ablations import ablations
from .sections.baselines import alternatives, baselines
from .sections.cases import Cases, cases
from .sections.cost import cost
from .sections.gate import gate
from .sections.harm import harm
from .sections.main import captions, main
from .study import Study
from .tables import summary

T = TypeVar("T")

_MEASURE: dict[SectionName, Callable[[Study], Section | Cases]] = {
    "main": main,
    "retrieval": captions,
    "ablations": ablations,
    "baselines": baselines,
    "alternatives": alternatives,
    "harm": harm,
    "gate": gate,
    "cost": cost,
    "cases": cases,
}


class StoredSection(Frozen):
    """One finished section and its cases, in a file of its own."""

    of: str  # digest of the inputs of its figures
    section: Section
    gains: tuple[Case, ...] = ()
    harms: tuple[Case, ...] = ()


def run_study(study: Study) -> Findings:
    """Measure the configured sections and write ``config.json`` and ``findings.json`` into the run's folder.

    Each finished section is kept in ``sections/``; one that was measured with the same configuration, data, memory,
    models and versions is read, not measured again.

    Raises:
        DataError: the folder cannot be written to.
    """
    digests = digests_of(study)
    of = digest_texts([study.config.digest(), json.dumps(versions()), *digests.values()])
    folder = study.folder / "sections"
    with as_data_error(f"{folder} cannot be made"):
        folder.mkdir(parents=True, exist_ok=True)
    study.config.write(study.folder, made={"versions": versions(), "digests": digests})
    parts = [_part(study, name, folder / f"{name}.json", of) for name in study.watch(study.config.sections, "sections")]
    sections = tuple(part.section for part in parts)
    findings = Findings(
        name=study.labelled.name,
        command=study.config.command(),
        setup=setup_of(study, digests),
        summary=summary(sections, study.config, study.ours.sides),
        sections=sections,
        gains=tuple(case for part in parts for case in part.gains),
        harms=tuple(case for part in parts for case in part.harms),
    )
    findings.write(study.folder)
    return findings


def digests_of(study: Study) -> dict[str, str]:
    """Digests of all inputs, to notice a change of them."""
    captioned = study.captioned
    return {
        "source": digest_task(study.whole),
        "dev": digest_task(study.dev),
        "memory": digest_records(study.records),
        "gate": ""
        if (calibration := study.subject.memory.calibration) is None
        else str(calibration.to_json()["sha256"]),
        "models": digest_texts([f"{name} {digest}" for name, digest in study.subject.digests.items()]),
        "distractors": "" if study.distractors is None else digest_records(study.distractors),
        "captions": "" if captioned is None else digest_arrays(captioned.images, captioned.texts),
    }


def digest_task(task: Task) -> str:
    """Digest of the inputs of a task's figures."""
    queries, numbers = task.queries, task.candidates.labels
    arrays = digest_arrays(queries.vectors, task.candidates.vectors, np.searchsorted(numbers, queries.labels))
    own = None if queries.own is None else [id_ for (id_,) in queries.own]
    unseen = None if task.unseen is None else list(task.unseen[numbers])
    names = (task.classes[number] for number in numbers)
    return digest_texts([arrays, *names, repr(own), repr(unseen), repr(list(task.groups))])


def setup_of(study: Study, digests: dict[str, str]) -> dict[str, Any]:
    """Describe the setup, for a reader of the figures."""
    ours, store = study.ours, study.subject.memory.store
    pairs, shows = store.count(), study.shows
    named = study.shows.covered(study.test.candidates.labels)
    setup: dict[str, Any] = {
        "images": len(study.whole),
        "classes": len(study.whole.candidates),
        "test images": len(study.test),
        "test classes": len(study.test.candidates),
        "development": study.config.dev or "half of the classes, by seed",
        "development images": len(study.dev),
        "memory": study.config.memory or study.config.memory_from or store.location,
        "pairs": pairs,
        "test classes with pairs": int(named.sum()),
        "pairs belong to classes by": shows.how,
        "encoder": str(study.subject.fingerprint),
        "models": list(study.subject.names),
        "fusion": ours.name,
        "k": ours.k,
        "gate": ours.gate,
        "caution": ours.caution,
        "refined outside of the main table": ours.sides,
        "seed": study.config.seed,
        "bootstrap draws": study.config.draws,
        "versions": versions(),
        "digests": {name: digest[:12] for name, digest in digests.items() if digest},
    }
    if (prompts := prompts_of(study.labelled, study.subject.encoder)) is not None:
        setup["class prompts"] = str(prompts)
    if pairs > len(study.records):
        setup["warning"] = (
            f"all sections but main, retrieval and latency use a random {len(study.records):,} of the {pairs:,} pairs "
            "(--memory-limit)"
        )
    return setup


def _part(study: Study, name: SectionName, path: Path, of: str) -> StoredSection:
    """Read the stored section, or measure and store it."""
    if (finished := _read_finished(path, of)) is not None:
        return finished
    found = _MEASURE[name](study)
    part = (
        StoredSection(of=of, section=found) if isinstance(found, Section) else StoredSection(of=of, **found._asdict())
    )
    with whole_file(path) as target:
        target.write_text(part.model_dump_json(indent=1), encoding="utf-8")
    return part


def _read_finished(path: Path, of: str) -> StoredSection | None:
    try:
        part = StoredSection.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # missing or truncated: it is measured again
        return None
    return part if part.of == of else None


_SHARES: dict[Any, int] = {
    "main": 4,
    "retrieval": 1,
    "ablations": 42,
    "baselines": 12,
    "alternatives": 10,
    "harm": 22,
    "gate": 5,
    "cost": 3,
    "cases": 1,
}
"""Of the time, about, for a time left that does not take every section for equally long."""


def bars(items: Iterable[T], what: str) -> Iterable[T]:
    """Show a progress bar; a :class:`~.study.StudyProgress`."""
    from ...progress import progress_bar

    if what != "sections":
        shown: Iterable[T] = progress_bar(items, desc=what, leave=False)
        yield from shown
        return
    sections = list(items)
    with progress_bar(total=sum(_SHARES[one] for one in sections), desc=what, unit="part") as bar:
        for one in sections:
            yield one
            bar.update(_SHARES[one])
