"""Prepare a study from a configuration and an opened model: read sets, encode them, load the memory, split."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ...data import Captioned, Labelled, is_vectors, read_labelled, read_pairs, read_records, read_retrieval
from ...encode import Progress
from ...errors import ConfigError, InputError
from ...reco import Reco
from ...refine import Refiner
from ...score import Refines
from ...types import Records
from ..encoding import (
    CachingReco,
    count_captioned,
    count_items,
    encoder_of,
    image_vectors,
    silent,
    text_vectors,
)
from ..prompts import labelled_task, with_templates
from .config import StudyConfig
from .membership import membership
from .streams import split_classes
from .study import Study, StudyProgress, read_memory, subject_of


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
