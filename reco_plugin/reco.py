"""Reco: encode -> retrieve -> fuse. The one object that applications and outer layers hold."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from types import TracebackType
from typing import Any, get_args

import numpy.typing as npt

from .artifact import Artifact, Manifest
from .config import Settings, load_settings
from .encode import Encoder
from .fuse import Fuser, open_fuser
from .memory import open_memory
from .pairs import PairMemory
from .refine import Refiner, check_choice
from .retrieve import Retrieval
from .types import Filter, ImageInput, Modality, Mode, Refinement, Role, Vectors


class Reco:
    """CLIP embeddings, refined through a memory of image-text pairs.

    Example::

        with Reco.open("triton_models", memory="./memory") as reco:
            reco.memory.add([Pair("fox-1", "fox.jpg", "a red fox", {"shop": "de"})])
            vectors = reco.embed_texts(["a red fox"])
    """

    def __init__(self, artifact: Artifact, settings: Settings, memory: PairMemory, fuser: Fuser) -> None:
        self.memory = memory
        """The pairs: add, remove, search, calibrate."""
        self.encoder = memory.encoder
        """The frozen CLIP alone."""
        self._artifact, self._settings = artifact, settings
        policy = artifact.manifest.policy
        how = Retrieval(k=settings.k or policy.k, search=settings.search, fusion=settings.fusion)
        gate = policy.gate if settings.gate is None else settings.gate
        self._refiner = Refiner(memory, fuser, how, gate=gate, candidate_height=policy.candidate_height)

    @classmethod
    def open(
        cls,
        model: str | os.PathLike[str] | None = None,
        memory: str | os.PathLike[str] | None = None,
        **settings: Any,
    ) -> Reco:
        """Open a model folder and a memory; see :class:`~reco_plugin.config.Settings` for all settings.

        Args:
            model: folder made by ``reco export``.
            memory: a folder (made when missing), ``":memory:"``, or the URL of a Qdrant server.
            settings: any other setting by name, as in ``provider="cuda"``.

        Raises:
            ConfigError: an unknown or unusable setting, or a missing optional package.
            ArtifactError: the model folder is missing, incomplete or of a newer version.
            FingerprintMismatch: the memory was built by another encoder.
            MemoryLocked: another process holds the memory.
        """
        location = None if memory is None else os.fspath(memory)
        chosen = load_settings(model=model, memory=location, **settings)
        artifact = Artifact.load(chosen.model)
        encoder = Encoder(artifact, chosen)
        store = open_memory(
            chosen.memory,
            artifact.manifest.fingerprint,
            kind=chosen.memory_kind,
            collection=chosen.memory_collection,
            api_key=chosen.memory_api_key.get_secret_value() if chosen.memory_api_key else None,
        )
        pairs = PairMemory(store, encoder, neighbours=chosen.k or artifact.manifest.policy.k)
        return cls(artifact, chosen, pairs, open_fuser(artifact, chosen))

    @property
    def manifest(self) -> Manifest:
        """What the model folder says of itself."""
        return self._artifact.manifest

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._settings

    def embed_images(
        self, images: Sequence[ImageInput], *, role: Role = "query", refine: bool | None = None, **options: Any
    ) -> Vectors:
        """Embed images (paths, bytes or PIL images).

        Args:
            images: B images.
            role: a query, or one of a set of candidates that compete with one another.
            refine: True or False; None leaves it to the model's policy for this side and role.
            options: any option of :meth:`refine`.

        Returns:
            (B, D) float32, unit-norm.
        """
        return self._embed(self.encoder.images(images), "image", role, refine, options)

    def embed_texts(
        self, texts: Sequence[str], *, role: Role = "query", refine: bool | None = None, **options: Any
    ) -> Vectors:
        """Embed texts; arguments as in :meth:`embed_images`."""
        return self._embed(self.encoder.texts(texts), "text", role, refine, options)

    def refines(self, modality: Modality, role: Role) -> bool:
        """Whether the model's policy refines this side in this role when the caller does not say."""
        check_choice("role", role, get_args(Role))
        return modality in self.manifest.policy.refine.get(role, ())

    def refine(
        self,
        vectors: npt.ArrayLike,
        *,
        modality: Modality,
        role: Role = "query",
        k: int | None = None,
        search: Mode | None = None,
        fusion: Mode | None = None,
        gate: bool | None = None,
        exclude: Sequence[Collection[str]] | Collection[str] | None = None,
        where: Filter | None = None,
        explain: bool = False,
    ) -> Refinement:
        """Refine CLIP vectors that were made here or elsewhere by the same encoder.

        Args:
            vectors: (B, D), unit-norm.
            modality: what they embed.
            role: a query, or one of the candidates: give all candidates in one call, they are refined as a set
                (each moves equally far; texts all move or none does).
            k: neighbours per query.
            search: ``"uni"`` or ``"cross"``.
            fusion: ``"cross"`` or ``"uni"``.
            gate: weigh neighbours by calibrated trust (for the paper's search and fusion only).
            exclude: ids that must not be found: B collections, or one collection for all.
            where: conditions on the payload, see :data:`~reco_plugin.types.Filter`.
            explain: also return neighbours with payloads, trust and weights.

        Raises:
            VectorError: wrong dimension, NaN, or not unit-norm.
            InputError: an empty batch, exclusions of another length, k below 1, or an unknown modality or mode.
        """
        return self._refiner.refine(
            vectors,
            modality=modality,
            role=role,
            k=k,
            search=search,
            fusion=fusion,
            gate=gate,
            exclude=exclude,
            where=where,
            explain=explain,
        )

    def close(self) -> None:
        """Flush and release the memory; closing twice is fine."""
        self.memory.close()

    def __enter__(self) -> Reco:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _embed(
        self, vectors: Vectors, modality: Modality, role: Role, refine: bool | None, options: dict[str, Any]
    ) -> Vectors:
        wanted = self.refines(modality, role) if refine is None else refine
        return self.refine(vectors, modality=modality, role=role, **options).vectors if wanted else vectors
