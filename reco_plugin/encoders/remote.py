"""An encoder that is only an API, and :func:`open_encoder`, which opens one of either kind.

Images are sent as the files that they are, and texts as they are: the API prepares both. What it costs is counted, and
every hour the vectors of fixed inputs are compared: where they are no longer what they were, the model is another one,
nothing more is stored, and queries stay plain, since their neighbours would be wrong.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..batching import Columns
from ..errors import InputError, SessionError
from ..settings import Settings, load_settings
from ..types import MODALITIES, Modality
from ..values import CONTEXT_LENGTH, is_unicode, show
from .api_dialects import is_address, parse_address
from .local import Encoder, EncoderInput, Preparation
from .model_folder import Artifact, FusionInfo, Manifest, Policy
from .preprocess import ImageConfig, TextConfig, image_to_file
from .preprocess.image import Decoding

log = logging.getLogger(__name__)
CHECKED_EVERY_S = 3600.0
"""Seconds between two looks at whether the API still has the same model."""
_THUMBNAILS = ImageConfig((224, 224))
"""Of an API's images, which are sent as they are: only for those that people look at."""
_WHOLE_TEXTS = TextConfig("hf", CONTEXT_LENGTH, "whitespace", pad_id=0)
"""Of an API's texts: where it cuts them is not known."""


def open_encoder(artifact: Artifact, settings: Settings) -> Encoder:
    """The encoder of a model folder, or of the API that the folder or the settings name.

    Raises:
        MissingExtra: a package of an API's client is not installed.
        ConfigError: the API's address cannot be used.
    """
    return ApiEncoder(artifact, settings) if artifact.manifest.api else Encoder(artifact, settings)


def load_model(model: str, settings: Settings | None = None) -> Artifact:
    """Load a model folder; the address of an API stands for one, and is measured.

    Args:
        model: the folder or address.
        settings: the key and patience for an API; None: those of environment and ``reco.toml``.

    Raises:
        ArtifactError: see :meth:`.Artifact.load`.
        ConfigError: an address that cannot be used, or a missing optional package.
        SessionError: the API cannot be reached, or answers no vectors.
    """
    if not is_address(model):
        return Artifact.load(model)
    from .api_client import ApiClient, measure

    with closing(ApiClient(parse_address(model), settings or load_settings(model=model))) as client:
        fingerprint, served = measure(client)
        address = str(client.address)
    manifest = Manifest(
        name=fingerprint.name,
        digest=fingerprint.digest,
        dimension=fingerprint.dimension,
        image=_THUMBNAILS,
        text=_WHOLE_TEXTS,
        fusion=FusionInfo(fuser="reco"),
        policy=Policy() if served is None else Policy(k=served.k, coverage=served.coverage),
        graphs={},
        api=address,
    )
    return Artifact(Path(model), manifest)


class ApiPreparation(Preparation):
    """Checks items, and packs them as bytes (N,) uint8: texts in UTF-8, images as files."""

    def __init__(self, artifact: Artifact, max_pixels: int) -> None:
        super().__init__(artifact, max_pixels)
        self.address = parse_address(artifact.manifest.api)

    def image(self, image: Any, decoding: Decoding = nullcontext) -> EncoderInput:
        """An image as the bytes of a file (N,).

        Raises:
            ImageError: it cannot be decoded or is too large; the message begins with "is", "has" or "cannot".
            SessionError: the API encodes no images.
        """
        if not self.address.images:
            raise SessionError(
                f"the encoder at {self.address.host} takes texts only, no images: give a vector in place of each "
                "picture, or name an API whose model embeds both"
            )
        return EncoderInput(np.frombuffer(image_to_file(image, self._max_pixels, decoding), np.uint8))

    def text(self, text: str, what: str) -> EncoderInput:
        """A text as UTF-8 (N,).

        Raises:
            InputError: it is not valid Unicode, or empty; ``what`` names it.
        """
        if not isinstance(text, str):
            raise InputError(f"{what} must be a text, got {show(text)}")
        if not is_unicode(text) or not text.strip():
            raise InputError(f"{what} is {'empty' if not text.strip() else 'no valid Unicode'}: leave it out")
        return EncoderInput(np.frombuffer(text.encode(), np.uint8))


class ApiEncoder(Encoder):
    """The frozen CLIP behind an API; safe to use from several threads."""

    def __init__(
        self,
        artifact: Artifact,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.monotonic,
        transport: Any = None,
    ) -> None:
        """Keep a client; does not connect yet.

        Args:
            artifact: with the address and the fingerprint that was measured.
            settings: key, timeouts and patience.
            clock: in seconds; must never go back.
            transport: of httpx, instead of the network.
        """
        from .api_client import ApiClient

        super().__init__(artifact, settings.model_copy(update={"batch_callers": False}))
        self.preparation: ApiPreparation = ApiPreparation(artifact, settings.max_pixels)
        self.client = ApiClient(self.preparation.address, settings, transport)
        self.modalities = MODALITIES if self.client.address.images else ("text",)
        self._clock, self._checking = clock, threading.Lock()
        just_measured = not artifact.folder.is_dir()
        self._next_check = clock() + CHECKED_EVERY_S if just_measured else -np.inf

    def check(self) -> None:
        """Look whether the API still has the same model, if that is due; :attr:`changed` says so where it has not.

        Raises:
            SessionError: it cannot be called.
        """
        with self._checking:
            if self._clock() < self._next_check:
                return
            from .api_client import describe_change

            try:
                change = describe_change(self.client, self._artifact.manifest.fingerprint)
            except InputError as error:
                raise SessionError(f"{error}: it took the same inputs when it was measured") from None
            self._next_check = self._clock() + CHECKED_EVERY_S
            host, before = self.client.address.host, self.changed
            self.changed = change and f"the encoder at {host} has another model than the memory: {change}"
            if self.changed and not before:
                log.error(
                    "%s. Nothing is stored and queries stay plain until it has the earlier one again", self.changed
                )
            elif before and not self.changed:
                log.warning("the encoder at %s has its earlier model again", host)

    def _stack(self, items: list[npt.NDArray[Any]]) -> Any:
        return items  # files of different sizes

    def _prepare(self, part: Any, modality: Modality) -> Any:
        """Bytes (N,) of each item."""
        if isinstance(part, np.ndarray):
            raise InputError("token ids and pixels cannot be sent to an API: give texts and images")
        prepared = (isinstance(item, np.ndarray) for item in part)
        ready = self.preparation
        make: Callable[[Any], EncoderInput] = (
            ready.image if modality == "image" else lambda one: ready.text(one, "a text")
        )
        return [item if done else make(item).array for item, done in zip(part, prepared, strict=True)]

    def _by_length(self, batches: Sequence[Any]) -> Iterator[tuple[npt.NDArray[np.intp], Any]]:
        """The batches as they are: an API pads nothing."""
        start = 0
        for batch in batches:
            yield np.arange(start, start + len(batch)), batch
            start += len(batch)

    def _run(self, modality: Modality, rows: Columns) -> Columns:
        if self._clock() >= self._next_check:
            self.check()
        (packed,) = rows
        try:
            return (self.client.embed([item.tobytes() for item in packed], modality, self.dimension),)
        except SessionError:
            self._next_check = -np.inf  # what was down may be back with another model
            raise
