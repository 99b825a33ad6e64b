"""The inputs of a study, read and encoded; what its sections share is made when first needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ...artifact import Artifact
from ...config import Settings, load_settings
from ...data import Captioned, Labelled, is_vectors, read_labelled, read_pairs, read_records, read_retrieval
from ...encode import Encoder, Progress
from ...errors import ConfigError, FingerprintMismatch, InputError
from ...fingerprint import are_one_encoder
from ...fuse import Fuser, Learned, NeighbourFuser, open_fusers
from ...memory import Fingerprint, Memory
from ...options import RefineDefaults, defaults_of, given_options
from ...reco import Reco
from ...refine import Refiner, VectorMemory
from ...score import Refines
from ...types import Records
from ..encoding import (
    CachingReco,
    count_captioned,
    count_items,
    encoder_of,
    image_vectors,
    labelled_task,
    silent,
    text_vectors,
    with_templates,
)
from ..intervals import Interval
from ..measure import Measured, gain, measure
from ..methods import Chosen, Measures, Method, WithoutRetrieval, baseline_kinds, choose
from ..task import Mask, Task
from .config import StudyConfig
from .memories import Membership, Memories, folds, membership, split_classes, stream

T = TypeVar("T")


class StudyProgress(Protocol):
    """Yields items and shows progress."""

    def __call__(self, items: Iterable[T], what: str, /) -> Iterable[T]:
        """Yield the items, one by one."""
        ...


@dataclass(frozen=True)
class Study:
    """The inputs of a study."""

    config: StudyConfig
    subject: Subject  # memory and models
    labelled: Labelled  # the test set
    whole: Task  # of the test set
    dev: Task  # to choose baselines on
    test: Task  # of all sections but the main table
    records: Records  # the memory's pairs, (M, D) each, in RAM, at most ``config.memory_limit``
    shows: Membership  # their classes in the whole set
    distractors: Records | None  # pairs of another domain, if given
    captioned: Captioned | None  # retrieval set of vectors, if given
    folder: Path  # of the run
    watch: StudyProgress
    memories: Memories = field(default_factory=Memories)  # that were made

    @property
    def ours(self) -> Method:
        """The method of the models."""
        return self.subject.ours

    @cached_property
    def frozen(self) -> Measured:
        """Measure the test task without refinement."""
        return measure(self.test)

    @cached_property
    def full(self) -> VectorMemory:
        """A memory of all pairs in RAM."""
        return self.memory(self.records)

    @cached_property
    def baselines(self) -> tuple[Chosen, ...]:
        """The best of every kind on the development task; first those that are like ours, the best of them first."""
        best = choose(self.dev, self.full, baseline_kinds(self.ours.k, self.ours.sides), self.watch)
        return tuple(sorted(best, key=lambda chosen: (not self.is_like(chosen.method), -chosen.dev_top1)))

    def is_like(self, method: Measures) -> bool:
        """Whether a method moves what ours does, or scores the classes that ours is compared on."""
        return method.sides in (self.ours.sides, None)

    def ours_like(self, method: Measures) -> Method:
        """Our method with the sides that another one moves; as it is where that one scores a list of classes."""
        return self.ours if method.sides is None else replace(self.ours, sides=method.sides)

    def memory(self, records: Records, k: int | None = None) -> VectorMemory:
        """A memory of pairs, (N, D) each, in RAM, calibrated from them; k is that of ``ours`` when None."""
        return self.memories.of(records, self.subject.fingerprint, k or self.ours.k)

    def without(self, numbers: npt.NDArray[np.int64]) -> VectorMemory:
        """A memory in RAM without the pairs of these classes (M,)."""
        return self.memory(self.records.take(~self.shows.of(numbers)))

    def halves(self) -> list[tuple[Mask, VectorMemory]]:
        """Mask (N,) of the queries of each half of the test classes, and a memory in RAM without its pairs."""
        labels, left_out = self.test.queries.labels, folds(self.test, self.config.seed)
        return [(fold[labels], self.without(np.flatnonzero(fold))) for fold in left_out]

    def measure_halves(self, method: Measures, halves: Sequence[tuple[Mask, VectorMemory]]) -> Measured:
        """Measure a method on the test task, with a memory of its own for each half of the queries, a mask (N,)."""
        asked = [(mask, memory, self.test.only(mask)) for mask, memory in halves if mask.any()]
        return Measured.merge([(mask, self.measure(method, memory, task)) for mask, memory, task in asked])

    def measure(self, method: Measures, memory: VectorMemory | None = None, task: Task | None = None) -> Measured:
        """Measure a method on the test task, with all pairs unless another memory is given."""
        return method.measure(task or self.test, memory or self.full)

    def gain(self, outcome: Measured, before: Measured | None = None, task: Task | None = None) -> Interval:
        """Difference in top-1, by default to frozen, with its interval over groups."""
        groups, drawn = (task or self.test).groups, {"samples": self.config.draws, "seed": self.config.seed}
        return gain(outcome, before or self.frozen, groups, **drawn)


@dataclass(frozen=True)
class Subject:
    """The memory and the models of a study."""

    memory: Learned  # as given, not the copy in RAM
    ours: Method  # of the models, by their policy and the configuration
    names: tuple[str, ...]  # of the models
    digests: dict[str, str]  # of the models' files, by name
    encoder: Encoder | None
    fingerprint: Fingerprint  # of the encoder
    control: Fuser | None = None  # the fusion that was trained without retrieval, if given


def subject_of(reco: Reco | Refiner, config: StudyConfig) -> Subject:
    """Open the further trainings of a model, and combine their settings; ``reco`` is the first, or of vectors alone."""
    settings = load_settings(**{**defaults_of(config.refinement), "fuser": config.fuser})
    fusers: Sequence[NeighbourFuser | None] = [None]
    if isinstance(reco, Refiner):
        model: RefineDefaults = reco.defaults
        prompts, digests = False, {"reco": "closed form"}
        names: Sequence[str] = ["reco"]
    else:
        model, prompts = reco.manifest.defaults, "text" in reco.manifest.policy.refine.get("candidate", ())
        names = config.models or [str(load_settings().model)]
        artifacts = [_same_encoder(Artifact.load(name), reco) for name in names]
        fusers = [_fuser(artifact, settings) for artifact in artifacts]
        if None in fusers and len(fusers) > 1:
            raise ConfigError("--fuser reco has no weights: several models would all be the same, give one")
        digests = {name: _graphs(artifact) for name, artifact in zip(names, artifacts, strict=True)}
    control = None
    if config.control is not None and isinstance(reco, Reco):
        artifact = _same_encoder(Artifact.load(config.control), reco)
        if not (trained := list(open_fusers(artifact, settings).values())):
            raise ConfigError(f"--control: the model in {artifact.folder} has no trained fusion")
        control, digests = WithoutRetrieval(trained[0]), digests | {"control": _graphs(artifact)}
    elif config.control is not None:
        raise ConfigError("--control needs a model: vectors alone have no trained fusion to compare with")
    return Subject(
        memory=reco.memory,
        ours=_refining(fusers, model, prompts, settings, config),
        names=tuple(names),
        digests=digests,
        encoder=getattr(reco, "encoder", None),
        fingerprint=reco.memory.store.header.fingerprint,
        control=control,
    )


def read_memory(store: Memory, limit: int, seed: int) -> Records:
    """Read the pairs of a memory, (N, D) each, or a random choice of ``limit`` of them.

    They are sorted by id, so that later draws do not depend on the order in which they were added.
    """
    count, dimension = store.count(), store.header.fingerprint.dimension
    wanted, start, parts = np.ones(count, np.bool_), 0, []
    wanted[stream(seed, "memory limit").permutation(count)[limit:]] = False
    for batch in store.scroll():
        parts.append(batch.take(wanted[start : start + len(batch)]))
        start += len(batch)
    records = Records.join(parts, dimension)
    return records.take(np.argsort(np.array(records.ids, np.str_)))


def _fuser(artifact: Artifact, settings: Settings) -> NeighbourFuser | None:
    """The fusion of a model, by the settings; None for the closed form."""
    name = settings.refining.get("fuser") or artifact.manifest.fusion.fuser
    if name not in (known := artifact.manifest.fusers):
        raise ConfigError(f"fuser: the model in {artifact.folder} has no {name!r}, only: {', '.join(known)}")
    return open_fusers(artifact, settings).get(name)


def _refining(
    fusers: Sequence[NeighbourFuser | None],
    model: RefineDefaults,
    prompts: bool,
    settings: Settings,
    config: StudyConfig,
) -> Method:
    chosen = {**model, **settings.refining, **given_options(config.refinement)}
    exact = fusers[0] is None
    return Method(
        fusers=tuple(fusers),
        k=chosen["k"] or 1,
        gate=chosen["gate"] is not False,
        sides=config.side or ("both" if exact or prompts else "image"),  # the classes are known: exact scores
        caution="balanced" if chosen["caution"] is None else chosen["caution"],
    )


def _same_encoder(artifact: Artifact, reco: Reco) -> Artifact:
    first, this = reco.manifest.fingerprint, artifact.manifest.fingerprint
    if not are_one_encoder(first, this):
        raise FingerprintMismatch(
            f"{artifact.folder} has the encoder {this}, the first model {first}: "
            "give trainings of one encoder, and study another encoder in a run of its own"
        )
    return artifact


def _graphs(artifact: Artifact) -> str:
    return " ".join(f"{name}:{graph.sha256[:16]}" for name, graph in sorted(artifact.manifest.graphs.items()))


@dataclass(frozen=True)
class Sets:
    """The sets of a study, raw or as vectors."""

    labelled: Labelled  # test set
    dev: Labelled | None  # development set, where one was given
    captioned: Captioned | None  # retrieval set, where one was given

    @property
    def items(self) -> int:
        """Count the items to encode."""
        captioned = 0 if self.captioned is None else count_captioned(self.captioned)
        return captioned + sum(count_items(labelled) for labelled in (self.labelled, self.dev) if labelled is not None)

    def with_templates(self, reco: Refines) -> Sets:
        """The sets with the model's templates where they have none of their own."""
        dev = None if self.dev is None else with_templates(reco, self.dev)
        return replace(self, labelled=with_templates(reco, self.labelled), dev=dev)


def read_sets(config: StudyConfig) -> Sets:
    """Read the labelled sets and the captions.

    Raises:
        DataError: a set cannot be read.
        ConfigError: templates for prompt vectors.
    """
    templates = () if config.dev is None or is_vectors(config.dev) else config.templates
    return Sets(
        read_labelled(config.source, templates=config.templates),
        None if config.dev is None else read_labelled(config.dev, templates=templates),
        None if config.captions is None else read_retrieval(config.captions),
    )


def prepare(
    reco: Reco | Refiner,
    config: StudyConfig,
    sets: Sets,
    folder: Path,
    *,
    watch: StudyProgress,
    cache: Path | None = None,
    progress: Progress = silent,
) -> Study:
    """Encode and load everything that sections need; ``reco`` and ``sets`` are as the configuration says.

    Frozen vectors are kept in ``cache``, by default in the run's folder; ``progress`` is called with the number of
    items of each encoded batch.

    Raises:
        ConfigError: too few classes to split, an unknown label key, or raw data without a model.
        DataError: distractors that cannot be read.
        InputError: an empty memory.
    """
    subject, store = subject_of(reco, config), reco.memory.store
    if store.count() == 0:
        raise InputError("the memory is empty, there is nothing to study: give --memory or --memory-from with pairs")
    source = CachingReco(reco, cache or folder / "vectors") if isinstance(reco, Reco) else reco
    sets = sets.with_templates(reco)
    whole = labelled_task(source, sets.labelled, progress)
    if sets.dev is None:
        dev, test = split_classes(whole, config.seed)
    else:
        dev, test = labelled_task(source, sets.dev, progress), whole
    for what, task in (("development", dev), ("test", test)):
        if not len(task):
            raise ConfigError(f"no image is of a {what} class: give a development set (--dev FILE)")
    records = read_memory(store, config.memory_limit, config.seed)
    return Study(
        config=config,
        subject=subject,
        labelled=sets.labelled,
        whole=whole,
        dev=dev,
        test=test,
        records=records,
        shows=membership(records, whole.classes, whole.candidates.vectors, config.label_key),
        distractors=None if config.distractors is None else _distractors(source, config.distractors, progress),
        captioned=None if sets.captioned is None else _encode_captioned(source, sets.captioned, progress),
        folder=folder,
        watch=watch,
    )


def _encode_captioned(source: CachingReco | Refiner, captioned: Captioned, progress: Progress) -> Captioned:
    images = image_vectors(source, captioned.images, progress)
    return replace(captioned, images=images, texts=text_vectors(source, captioned.texts, progress))


def _distractors(source: CachingReco | Refiner, pairs: str, progress: Progress) -> Records:
    if is_vectors(pairs):
        batches = list(read_records(pairs))
        return Records.join(batches, batches[0].image.shape[1])
    read, encoder = list(read_pairs(pairs)), encoder_of(source, "irrelevant pairs")
    return Records(
        [pair.id for pair in read],
        encoder.images([pair.image for pair in read], progress),  # type: ignore[misc]
        encoder.texts([pair.text for pair in read], progress),  # type: ignore[misc]
        [pair.payload for pair in read],
    )
