"""Reco: encode -> retrieve -> fuse. The object that applications use."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from .counters import Counters
from .defaults import TARGET
from .encoders.local import Encoder
from .encoders.model_folder import Artifact, Manifest
from .encoders.remote import load_model, open_encoder
from .encoders.runtimes.graphs import check_settings
from .errors import (
    FORKED,
    ConfigError,
    FingerprintMismatch,
    InputError,
    MemoryStoreError,
    SessionError,
    SessionTimeout,
)
from .files import in_home
from .fusion.base import NeighbourFuser, open_fusers
from .fusion.exact_scores import Scores, score_both
from .fusion.refiner import ROLES, Refiner, check_texts
from .options import RefineDefaults, RefineOptions, check_options
from .pairs import PairMemory
from .retrieval.guard import Breaker, Circuit, Guard, Outage, guard_memory, open_or_await
from .settings import Settings, load_settings
from .signals.confidence import PRECISION, Matches, match_rankings
from .types import MODALITIES, UNMOVED, FuserName, ImageInput, Modality, Refinement, Role, Vectors
from .values import check_choice, check_flag, check_vectors, show

_UNNAMED = (
    "no model was named and there is no ./triton_models, so this is the quickstart model, which knows drawings and "
    "little else. To keep to it: RECO_MODEL=quickstart; to take a CLIP: reco model export --help"
)


log = logging.getLogger(__name__)


def tell_fallback(settings: Settings) -> None:
    """Warn where the quickstart model stands in for one that was not named."""
    if settings.falls_back:
        warnings.warn(_UNNAMED, stacklevel=3)


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
        fusers: Mapping[FuserName, NeighbourFuser],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.memory = memory
        """The pairs: add, remove, search, calibrate."""
        self.encoder = memory.encoder
        """The frozen CLIP."""
        self.counters = Counters()
        """Seconds, distances, and refined or degraded calls."""
        if (client := self.encoder.client) is not None:
            self.counters.registry.register(client.calls)
            self.counters.registry.register(client.items)
        self._artifact, self._settings, self._closed, self._process = artifact, settings, False, os.getpid()
        self._breaker = Breaker(settings.breaker_failures, settings.breaker_retry_s, clock)
        guard = Guard("memory", self._breaker, self.counters.retrieve_s.observe)
        timed = self.counters.fuse_s.time
        for fuser in fusers.values():
            fuser.timed = timed
        self._refiner = Refiner(guard_memory(memory, guard, settings), fusers, timed=timed, **self.defaults)

    @classmethod
    def open(
        cls,
        model: str | os.PathLike[str] | None = None,
        memory: str | os.PathLike[str] | None = None,
        **settings: Any,
    ) -> Reco:
        """Open a model folder and a memory; see :class:`~reco_plugin.settings.Settings` for all settings.

        Args:
            model: folder of ``reco model export``; None: the setting, else ``./triton_models``, else the quickstart
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
        if memory is not None and not (isinstance(memory, (str, os.PathLike)) and os.fspath(memory)):
            raise ConfigError(f"memory must be a folder, ':memory:' or the URL of a Qdrant server, got {memory!r}")
        location = None if memory is None else os.fspath(memory)
        chosen = load_settings(model=model, memory=location, **settings)
        is_new = "://" not in chosen.memory and chosen.memory != ":memory:" and not in_home(chosen.memory).exists()
        reco = cls.of(chosen)
        tell_fallback(chosen)
        if is_new:
            log.warning("there was no memory at %s: an empty one was made there", in_home(chosen.memory).absolute())
        return reco

    @classmethod
    def of(
        cls,
        settings: Settings,
        pairs_of: Callable[[Encoder], PairMemory] | None = None,
    ) -> Reco:
        """Open what the settings name; errors as in :meth:`open`.

        Args:
            settings: all of them.
            pairs_of: makes the memory, where it is another one than that of the settings.
        """
        check_settings(settings)  # else the first request would find it
        artifact = load_model(settings.model, settings)
        fuser, known = (artifact.manifest.defaults | settings.refining)["fuser"], artifact.manifest.fusers
        if fuser not in known:
            raise ConfigError(f"fuser: the model in {artifact.place} has no {fuser!r}, only: {', '.join(known)}")
        encoder = open_encoder(artifact, settings)
        fusers = open_fusers(artifact, settings)
        if pairs_of is None:  # last: an error that is kept, as in a notebook, would keep the folder's lock
            store = open_or_await(settings, artifact.manifest.fingerprint)
            neighbours = settings.refining.get("k") or artifact.manifest.policy.k
            pairs = PairMemory(store, encoder, neighbours, settings.memory_options.tenant_field)
        else:
            pairs = pairs_of(encoder)
        return cls(artifact, settings, pairs, fusers)

    @property
    def manifest(self) -> Manifest:
        """The manifest of the model folder."""
        return self._artifact.manifest

    @property
    def defaults(self) -> RefineDefaults:
        """The options of a refinement where a call says nothing: the settings', else the model's."""
        return {"target": TARGET, **self.manifest.defaults, **self._settings.refining}

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._settings

    @property
    def circuit(self) -> Circuit:
        """Whether the memory is searched now, and if not, why and for how long."""
        return self._breaker.circuit

    def metrics(self) -> dict[str, Any]:
        """Counters by the names of ``docs/run.md``, and the circuit; JSON-like."""
        return {**self.counters.to_dict(), "circuit": asdict(self.circuit)}

    def embed(
        self,
        items: Sequence[ImageInput] | Sequence[str],
        *,
        modality: Modality,
        role: Role = "query",
        refine: bool | None = None,
        **options: Unpack[RefineOptions],
    ) -> Refinement:
        """Embed images or texts and return details: ``vectors`` and ``frozen`` (B, D), ``moved`` (B,), ``degraded``.

        Args:
            items: B images (paths, bytes or PIL images) or B texts.
            modality: image or text.
            role: a query, or one of a set of candidates that compete with one another.
            refine: True or False; None leaves it to the model's policy for this side and role.
            options: any option of :meth:`refine`. Without a ``target``, queries are refined to be compared with images:
                give ``target="text"`` where they are compared with texts, as when an image is to be named.

        Raises:
            InputError: an empty batch, an item that cannot be encoded, or invalid options.
            SessionError: the encoder failed, which cannot be degraded.
        """
        how = check_options(options)  # even if nothing is refined
        if role not in ROLES:
            check_choice("role", role, ROLES)
        wanted = self.refines(modality, role) if refine is None else check_flag("refine", refine)
        frozen = self._encode(items, modality)
        texts = items if modality == "text" else None
        return self.refine_own(frozen, modality, role, how, texts) if wanted else Refinement(frozen, frozen)  # type: ignore[arg-type]

    def _encode(self, items: Sequence[ImageInput] | Sequence[str], modality: Modality) -> Vectors:
        """Encode to (B, D), and count the time."""
        if modality not in MODALITIES:
            check_choice("modality", modality, MODALITIES)
        encode: Callable[..., Vectors] = self.encoder.images if modality == "image" else self.encoder.texts
        with self.counters.encode_s.labels(modality).time():
            return encode(items)

    def embed_images(
        self,
        images: Sequence[ImageInput],
        *,
        role: Role = "query",
        refine: bool | None = None,
        **options: Unpack[RefineOptions],
    ) -> Vectors:
        """Embed images (paths, bytes or PIL images); :meth:`embed` also says whether they are refined.

        Args:
            images: B images.
            role: a query, or one of a set of candidates that compete with one another.
            refine: True or False; None leaves it to the model's policy for this side and role.
            options: any option of :meth:`refine`; see :meth:`embed` for the ``target``.

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
        **options: Unpack[RefineOptions],
    ) -> Vectors:
        """Embed B texts to (B, D); arguments as in :meth:`embed_images`."""
        return self.embed(texts, modality="text", role=role, refine=refine, **options).vectors

    def refines(self, modality: Modality, role: Role) -> bool:
        """Whether the model's policy refines this side in this role."""
        return modality in self._artifact.manifest.policy.refine.get(role, ())

    def refine(
        self,
        vectors: npt.ArrayLike,
        *,
        modality: Modality,
        role: Role = "query",
        texts: Sequence[str | None] | None = None,
        **options: Unpack[RefineOptions],
    ) -> Refinement:
        """Refine CLIP vectors (B, D) that were made here or elsewhere by the same encoder.

        If the memory or the fusion is down or late, the result has the frozen vectors and ``degraded`` gives the
        reason, unless the setting ``on_memory_failure`` is ``fail``.

        Args:
            vectors: (B, D), unit-norm.
            modality: what they embed.
            role: a query, or one of the candidates: give all candidates in one call, they are refined as a set
                (texts all move or none does, by the share that the memory knows).
            texts: B, what was encoded, None where that is not known: captions are found by its words, too, as
                :meth:`embed` does.
            options: see :class:`~reco_plugin.options.RefineOptions`, and :meth:`embed` for the ``target``.

        Raises:
            VectorError: wrong dimension, NaN, or not unit-norm.
            FingerprintMismatch: the memory, reached only now, was built by another encoder.
            InputError: an empty batch, exclusions of another length, k below 1, or an unknown modality or mode.
            MemoryStoreError: this object is closed; or the memory failed and ``on_memory_failure`` is ``fail``.
            SessionError: likewise the fusion; or the process was forked after this was opened.
        """
        how, queries = check_options(options), check_vectors(vectors, self._refiner.dimension)
        check_choice("modality", modality, MODALITIES)
        check_choice("role", role, ROLES)
        return self.refine_own(queries, modality, role, how, check_texts(texts, len(queries)))

    def refine_own(
        self,
        queries: Vectors,
        modality: Modality,
        role: Role,
        how: RefineOptions,
        texts: Sequence[str | None] | None = None,
        pause: Callable[[], object] = int,
    ) -> Refinement:
        """Refine (B, D) as :meth:`refine` does, where all that is given was made or checked in this process.

        That is, vectors of :attr:`encoder`, and options of :func:`~reco_plugin.options.check_options`. Of the texts
        that were encoded, captions are found by their words, too. ``pause`` is called between blocks of a large batch;
        what it raises ends the call.
        """
        if self._process != os.getpid():  # else the memory raises it, which would count as an outage
            raise SessionError(f"this Reco {FORKED}")
        if self._closed:
            raise MemoryStoreError(f"this Reco is closed, and its memory at {self.memory.location!r}: open it again")
        try:
            if self.encoder.changed is not None:
                raise Outage("encoder_changed", FingerprintMismatch(self.encoder.changed))
            fuser, asked = self._refiner.ask(queries, modality, role, how, texts, pause)
            result = fuser.refine(asked)
        except (Outage, SessionError) as error:
            if isinstance(error, Outage):
                outage = error
            else:
                outage = Outage("fusion_timeout" if isinstance(error, SessionTimeout) else "fusion_error", error)
            if self._settings.on_memory_failure == "fail":
                self.counters.failed.labels(outage.reason).inc()
                raise outage.error from outage.error.__cause__
            self.counters.degraded.labels(outage.reason).inc()
            outage.tell()
            return Refinement(queries.copy(), queries, degraded=outage.reason)
        moved = result.moved
        counter = self.counters.refined if (moved > UNMOVED).any() else self.counters.left_plain
        counter.labels(modality).inc()
        for distance in moved.tolist():
            self.counters.moved.observe(distance)
        return result

    def scores(
        self,
        images: Sequence[ImageInput] | Vectors,
        texts: Sequence[str] | Vectors,
        queries: Modality = "image",
        **options: Unpack[RefineOptions],
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
        check_choice("queries", queries, MODALITIES)
        asked = images if isinstance(images, np.ndarray) else self._encode(images, "image")
        among = texts if isinstance(texts, np.ndarray) else self._encode(texts, "text")
        return score_both(self, asked, among, queries, **options)

    def match(
        self,
        queries: Refinement,
        scores: Sequence[Sequence[float]] | npt.NDArray[np.floating[Any]] | None,
        *,
        modality: Modality,
        precision: float = PRECISION,
        documents: int | None = None,
    ) -> Matches:
        """Say how sure the first answers of an application's own index are, by what the memory's own pairs asked.

        Example::

            asked = reco.embed(["a red fox"], modality="text")
            found = my_index.search(asked.vectors[0], k=10)  # best first
            sure = reco.match(asked, [[hit.score for hit in found]], modality="text")
            sure.chance[0], sure.passes[0]

        Args:
            queries: B, refined or plain, as :meth:`embed` and :meth:`refine` return them.
            scores: B rankings: the cosines of the answers, the best first. None before a search: only
                :attr:`Matches.least` is known.
            modality: of the queries; the answers are of the other.
            precision: share of right ones among the first answers that pass, from .5 to below 1.
            documents: of the index; None: as many as the memory has pairs.

        Raises:
            InputError: scores that are no cosines or not one ranking a query, or a precision or number of documents
                that cannot be.
            ConfigError: what the memory knows of it is damaged.
        """
        check_choice("modality", modality, MODALITIES)
        if not isinstance(queries, Refinement):
            raise InputError(f"queries must be what embed or refine returned, got {show(queries)}")
        return match_rankings(self.memory.store.header.calibration, queries, scores, modality, precision, documents)

    def close(self) -> None:
        """Flush and release the memory; closing twice is fine."""
        self._closed = True
        self.memory.close()
        self.encoder.close()

    def __repr__(self) -> str:
        closed = ", closed" if self._closed else ""
        return f"<Reco {self.manifest.name!r}, memory {self.memory.location!r}{closed}>"

    def __enter__(self) -> Reco:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
