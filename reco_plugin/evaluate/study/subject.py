"""What a study evaluates: a memory and one or more fusions of one encoder, as the model's policy uses them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...artifact import Artifact, Policy
from ...config import Settings, load_settings
from ...encode import Encoder
from ...errors import ConfigError, FingerprintMismatch
from ...fuse import Fuser, GraphFuser, TrainingFreeFuser, open_fuser
from ...memory import Fingerprint, Memory
from ...reco import Reco
from ...refine import Calibrated, Refiner
from ...retrieve import Retrieval
from ...types import Records
from ..methods import Method
from ..task import Side
from .config import StudyConfig
from .fusers import WithoutRetrieval
from .streams import stream


@dataclass(frozen=True)
class Subject:
    """What is evaluated.

    Attributes:
        memory: the real one.
        ours: how the models refine, by their policy and what was asked for.
        names: of the models.
        digests: of the models' files, by name: another training is another digest.
        encoder: where there is one.
        fingerprint: of the encoder.
        control: the fusion that was trained without retrieval, if one was given.
    """

    memory: Calibrated
    ours: Method
    names: tuple[str, ...]
    digests: dict[str, str]
    encoder: Encoder | None
    fingerprint: Fingerprint
    control: Fuser | None = None


def subject_of(reco: Reco | Refiner, config: StudyConfig) -> Subject:
    """Say how the opened model and its further trainings refine.

    Args:
        reco: opened by the configuration: the first model, or a refiner of vectors alone.
        config: names the models, and what is to be refined.

    Raises:
        ConfigError: several models where nothing is trained.
        FingerprintMismatch: models of different encoders.
        ArtifactError: a model folder that is not whole.
    """
    settings = load_settings(fuser=config.fuser, **config.refinement)
    if isinstance(reco, Refiner):
        policy, fusers, digests = Policy(k=reco.how.k), [TrainingFreeFuser()], {"training-free": "training-free"}
        names: Sequence[str] = ["training-free"]
    else:
        policy, names = reco.manifest.policy, config.models or [str(load_settings().model)]
        artifacts = [_same_encoder(Artifact.load(name), reco) for name in names]
        if settings.fuser == "training-free" and len(artifacts) > 1:
            raise ConfigError("--fuser training-free has no weights: several models would all be the same, give one")
        fusers = [open_fuser(artifact, settings) for artifact in artifacts]  # type: ignore[misc]
        digests = {name: _graphs(artifact) for name, artifact in zip(names, artifacts, strict=True)}
    control = None
    if config.control is not None and isinstance(reco, Reco):
        artifact = _same_encoder(Artifact.load(config.control), reco)
        control, digests = WithoutRetrieval(GraphFuser(artifact, settings)), digests | {"control": _graphs(artifact)}
    elif config.control is not None:
        raise ConfigError("--control needs a model: vectors alone have no trained fusion to compare with")
    return Subject(
        memory=reco.memory,
        ours=_refining(fusers, policy, settings, config.side),
        names=tuple(names),
        digests=digests,
        encoder=getattr(reco, "encoder", None),
        fingerprint=reco.memory.store.header.fingerprint,
        control=control,
    )


def read_memory(store: Memory, limit: int, seed: int) -> Records:
    """The pairs of a memory, or a random choice of ``limit`` of them, in RAM.

    In the order of their ids: what is drawn of them later does not depend on the order in which they were added.
    """
    count, dimension = store.count(), store.header.fingerprint.dimension
    wanted, start, parts = np.ones(count, np.bool_), 0, []
    wanted[stream(seed, "memory limit").permutation(count)[limit:]] = False
    for batch in store.scroll():
        parts.append(batch.take(wanted[start : start + len(batch)]))
        start += len(batch)
    records = Records.join(parts, dimension)
    return records.take(np.argsort(np.array(records.ids, np.str_)))


def _refining(fusers: Sequence[Any], policy: Policy, settings: Settings, side: Side | None) -> Method:
    prompts = "text" in policy.refine.get("candidate", ())
    return Method(
        fusers=tuple(fusers),
        how=Retrieval(settings.k or policy.k, settings.search, settings.fusion),
        gate=policy.gate if settings.gate is None else settings.gate,
        sides=side or ("both" if prompts else "image"),
        height=policy.candidate_height,
    )


def _same_encoder(artifact: Artifact, reco: Reco) -> Artifact:
    first, this = reco.manifest.fingerprint, artifact.manifest.fingerprint
    if (first.digest, first.dimension) != (this.digest, this.dimension):
        raise FingerprintMismatch(
            f"{artifact.folder} has the encoder {this}, the first model {first}: "
            "give trainings of one encoder, and study another encoder in a run of its own"
        )
    return artifact


def _graphs(artifact: Artifact) -> str:
    return " ".join(f"{name}:{graph.sha256[:16]}" for name, graph in sorted(artifact.manifest.graphs.items()))
