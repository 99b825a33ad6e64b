"""Reco: encode -> retrieve -> fuse. The object that applications use."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Any, Unpack, get_args

import numpy as np
import numpy.typing as npt

from .artifact import Artifact, Manifest
from .config import Settings, SettingsKeywords, load_settings
from .counters import Counters
from .degrade import Circuit, Degrading, open_or_await
from .encode import Encoder
from .errors import FORKED, ConfigError, MemoryStoreError, SessionError
from .fuse import Fuser, open_fusers
from .pairs import PairMemory
from .refine import Refiner, Trusted
from .request import RefineKeywords, RefineOptions
from .retrieve import Retrieval
from .score import Scores, score_both
from .sessions import OpenGraph, check_settings, open_graph
from .types import MODALITIES, FuserName, ImageInput, Modality, Refinement, Role, Vectors
from .values import check_choice

_UNNAMED = (
    "no model was named and there is no ./triton_models, so this is the quickstart model, which knows drawings and "
    "little else. To keep to it: reco model get quickstart; to take a CLIP: reco export --help"
)


class Reco:
    """CLIP embeddings, refined through a memory of image-text pairs.

    Example::

        with Reco.open("triton_models", memory="./memory") as reco:
            reco.memory.add([Pair("fox-1", "fox.jpg", "a red fox", {"shop": "de"})])
            vectors = reco.embed_texts(["a red fox"])
    """

    def __init__(
        self,
        artifact: Artifact,
        settings: Settings,
        memory: PairMemory,
        fusers: Mapping[FuserName, Fuser],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.memory = memory
        """The pairs: add, remove, search, calibrate."""
        self.encoder = memory.encoder
        """The frozen CLIP."""
        self.counters = Counters()
        """Seconds, distances, and refined or degraded calls."""
        self._artifact, self._settings, self._closed, self._process = artifact, settings, False, os.getpid()
        policy = artifact.manifest.policy
        how = Retrieval(k=settings.k or policy.k, search=settings.search, fusion=settings.fusion)
        gate = policy.gate if settings.gate is None else settings.gate
        caution, fuser = settings.caution or policy.caution, settings.fuser or artifact.manifest.fusion.fuser
        if fuser not in artifact.manifest.fusers:
            raise ConfigError(
                f"fuser: the model in {artifact.folder} has no {fuser!r}, only: {', '.join(artifact.manifest.fusers)}"
            )

        def refiner(pairs: Trusted, fusers: Mapping[FuserName, Fuser]) -> Refiner:
            timed = self.counters.fuse_s.timed
            return Refiner(pairs, fusers, how, gate=gate, caution=caution, fuser=fuser, timed=timed)

        self._refiner = Degrading(memory, fusers, refiner, settings, self.counters, clock)

    @classmethod
    def open(
        cls,
        model: str | os.PathLike[str] | None = None,
        memory: str | os.PathLike[str] | None = None,
        **settings: Unpack[SettingsKeywords],
    ) -> Reco:
        """Open a model folder and a memory; see :class:`~reco_plugin.config.Settings` for all settings.

        Args:
            model: folder made by ``reco export``; None: the setting, else ``./triton_models``, else the quickstart
                model that comes with this package, with a warning.
            memory: a folder (made when missing), ``":memory:"``, or the URL of a Qdrant server.
            settings: any other setting by name, as in ``provider="cuda"``.

        A memory whose server is down is an error only with ``on_memory_failure=fail``: else answers are degraded until
        it is reached.

        Raises:
            ConfigError: an unknown or unusable setting, or a missing optional package.
            ArtifactError: the model folder is missing, incomplete or of a newer version.
            FingerprintMismatch: the memory was built by another encoder.
            MemoryLocked: another process holds the memory.
            MemoryUnavailable: its server is down, and ``on_memory_failure`` is ``fail``.
        """
        location = None if memory is None else os.fspath(memory)
        chosen = load_settings(model=model, memory=location, **settings)
        if chosen.falls_back:
            warnings.warn(_UNNAMED, stacklevel=2)
        return cls.of(chosen)

    @classmethod
    def of(
        cls,
        settings: Settings,
        open_graph: OpenGraph = open_graph,
        pairs_of: Callable[[Encoder], PairMemory] | None = None,
    ) -> Reco:
        """Open what the settings name; errors as in :meth:`open`.

        Args:
            settings: all of them.
            open_graph: opens a graph of the model folder, where something else than the settings runs it.
            pairs_of: makes the memory, where it is another one than that of the settings.
        """
        check_settings(settings)  # else the first request would find it
        artifact = Artifact.load(settings.model)
        encoder = Encoder(artifact, settings, open_graph)
        if pairs_of is None:
            store = open_or_await(settings, artifact.manifest.fingerprint)
            pairs = PairMemory(store, encoder, neighbours=settings.k or artifact.manifest.policy.k)
        else:
            pairs = pairs_of(encoder)
        return cls(artifact, settings, pairs, open_fusers(artifact, settings, open_graph))

    @property
    def manifest(self) -> Manifest:
        """The manifest of the model folder."""
        return self._artifact.manifest

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._settings

    @property
    def circuits(self) -> dict[str, Circuit]:
        """The circuits of ``memory`` and ``fusion``: whether they are called now, and if not, why and for how long."""
        return {str(part): circuit for part, circuit in self._refiner.circuits.items()}

    def metrics(self) -> dict[str, Any]:
        """Counters and circuits, JSON-like; see :class:`~reco_plugin.counters.Counters`."""
        circuits = {part: asdict(circuit) for part, circuit in self.circuits.items()}
        return {**self.counters.to_dict(), "circuits": circuits}

    def embed(
        self,
        items: Sequence[ImageInput] | Sequence[str],
        *,
        modality: Modality,
        role: Role = "query",
        refine: bool | None = None,
        **options: Unpack[RefineKeywords],
    ) -> Refinement:
        """Embed images or texts and return details: ``vectors`` and ``frozen`` (B, D), ``moved`` (B,), ``degraded``.

        Args:
            items: B images (paths, bytes or PIL images) or B texts.
            modality: image or text.
            role: a query, or one of a set of candidates that compete with one another.
            refine: True or False; None leaves it to the model's policy for this side and role.
            options: any option of :meth:`refine`.

        Raises:
            InputError: an empty batch, an item that cannot be encoded, or invalid options.
            SessionError: the encoder failed, which cannot be degraded.
        """
        RefineOptions(**options)  # checked even if nothing is refined
        wanted = self.refines(modality, role) if refine is None else refine
        check_choice("modality", modality, MODALITIES)
        frozen = self._encode(items, modality)
        return self.refine(frozen, modality=modality, role=role, **options) if wanted else Refinement(frozen, frozen)

    def _encode(self, items: Sequence[ImageInput] | Sequence[str], modality: Modality) -> Vectors:
        """Encode to (B, D), and count the time."""
        encode: Callable[..., Vectors] = self.encoder.images if modality == "image" else self.encoder.texts
        with self.counters.encode_s[modality].timed():
            return encode(items)

    def embed_images(
        self,
        images: Sequence[ImageInput],
        *,
        role: Role = "query",
        refine: bool | None = None,
        **options: Unpack[RefineKeywords],
    ) -> Vectors:
        """Embed images (paths, bytes or PIL images); :meth:`embed` also says whether they are refined.

        Args:
            images: B images.
            role: a query, or one of a set of candidates that compete with one another.
            refine: True or False; None leaves it to the model's policy for this side and role.
            options: any option of :meth:`refine`.

        Returns:
            (B, D) float32, unit-norm.
        """
        return self.embed(images, modality="image", role=role, refine=refine, **options).vectors

    def embed_texts(
        self,
        texts: Sequence[str],
        *,
        role: Role = "query",
        refine: bool | None = None,
        **options: Unpack[RefineKeywords],
    ) -> Vectors:
        """Embed B texts to (B, D); arguments as in :meth:`embed_images`."""
        return self.embed(texts, modality="text", role=role, refine=refine, **options).vectors

    def refines(self, modality: Modality, role: Role) -> bool:
        """Whether the model's policy refines this side in this role."""
        check_choice("role", role, get_args(Role))
        return modality in self.manifest.policy.refine.get(role, ())

    def refine(
        self,
        vectors: npt.ArrayLike,
        *,
        modality: Modality,
        role: Role = "query",
        **options: Unpack[RefineKeywords],
    ) -> Refinement:
        """Refine CLIP vectors (B, D) that were made here or elsewhere by the same encoder.

        If the memory or the fusion is down or late, the result has the frozen vectors and ``degraded`` gives the
        reason, unless the setting ``on_memory_failure`` is ``fail``.

        Args:
            vectors: (B, D), unit-norm.
            modality: what they embed.
            role: a query, or one of the candidates: give all candidates in one call, they are refined as a set
                (texts all move or none does, by the share that the memory knows).
            options: ``k``, ``search``, ``fusion``, ``gate``, ``caution``, ``fuser``, ``where``, ``exclude`` and
                ``explain``: see :class:`~reco_plugin.request.RefineOptions`.

        Raises:
            VectorError: wrong dimension, NaN, or not unit-norm.
            FingerprintMismatch: the memory, reached only now, was built by another encoder.
            InputError: an empty batch, exclusions of another length, k below 1, or an unknown modality or mode.
            MemoryStoreError: this object is closed; or the memory failed and ``on_memory_failure`` is ``fail``.
            SessionError: likewise the fusion; or the process was forked after this was opened.
        """
        if self._process != os.getpid():  # else the memory raises it, which would count as an outage
            raise SessionError(f"this Reco {FORKED}")
        if self._closed:
            raise MemoryStoreError(f"this Reco is closed, and its memory at {self.memory.location!r}: open it again")
        return self._refiner.refine(vectors, modality=modality, role=role, **options)

    def scores(
        self,
        images: Sequence[ImageInput] | Vectors,
        texts: Sequence[str] | Vectors,
        queries: Modality = "image",
        **options: Unpack[RefineKeywords],
    ) -> Scores:
        """Score images against texts, both refined: exact, where one cosine of two refined vectors is not.

        Each side's evidence is compared with the other's plain vector. Texts that the memory does not know stay plain
        where they compete, and those that it knows take little from them.

        Args:
            images: B images, raw or as vectors (B, D).
            texts: C texts, raw or as vectors (C, D).
            queries: which of the two ask; the others compete. With ``text``, the scores of one column rank images.
            options: as in :meth:`refine`; ``exclude`` is for the queries; without ``gate``, plain cosines.

        Raises:
            InputError: as in :meth:`refine`; or the fusion is not the closed form.
            SessionError: the encoder failed.
        """
        asked = images if isinstance(images, np.ndarray) else self._encode(images, "image")
        among = texts if isinstance(texts, np.ndarray) else self._encode(texts, "text")
        return score_both(self, asked, among, queries, **options)

    def close(self) -> None:
        """Flush and release the memory; closing twice is fine."""
        self._closed = True
        self.memory.close()

    def __enter__(self) -> Reco:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
