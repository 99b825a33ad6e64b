"""An encoder behind an API, and :func:`open_encoder` for encoders of both kinds.

The API receives texts and image files, and prepares them itself. Its vectors of fixed inputs are compared every hour.
If they change, the API has another model. Then nothing more is stored and queries stay plain, since their neighbours
would be wrong.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from functools import partial
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
"""Seconds between two checks that the API still has the same model."""
_THUMBNAILS = ImageConfig((224, 224))
"""Preprocessing of an API's images for thumbnails only; the API receives the files."""
_WHOLE_TEXTS = TextConfig("hf", CONTEXT_LENGTH, "whitespace", pad_id=0)
"""Preprocessing of an API's texts, whose context length is not known."""


def open_encoder(artifact: Artifact, settings: Settings) -> Encoder:
    """Open the encoder of a model folder or an API.

    Raises:
        MissingExtra: a package that calls an API is not installed.
        ConfigError: the address of the API is invalid.
    """
    return ApiEncoder(artifact, settings) if artifact.manifest.api else Encoder(artifact, settings)


def load_model(model: str, settings: Settings | None = None) -> Artifact:
    """Load a model folder, or make one in RAM for an API, from its vectors of fixed inputs.

    Args:
        model: the folder, or the address of an API.
        settings: key and timeouts for the API; None: those of the environment and ``reco.toml``.

    Raises:
        ArtifactError: see :meth:`.Artifact.load`.
        ConfigError: the address is invalid, or an optional package is missing.
        SessionError: the API cannot be reached, or does not return vectors.
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
    """Checks items and packs each as bytes (N,) uint8: a text as UTF-8, an image as a file."""

    def __init__(self, artifact: Artifact, max_pixels: int) -> None:
        super().__init__(artifact, max_pixels)
        self.address = parse_address(artifact.manifest.api)

    def image(self, image: Any, decoding: Decoding = nullcontext) -> EncoderInput:
        """Return an image as the bytes (N,) of a file.

        Raises:
            ImageError: it cannot be decoded or is too large; the message begins with "is", "has" or "cannot".
            SessionError: the API does not encode images.
        """
        if not self.address.images:
            raise SessionError(
                f"the encoder at {self.address.host} encodes texts only: give a vector in place of each image, or the "
                "address of a model that encodes both"
            )
        return EncoderInput(np.frombuffer(image_to_file(image, self._max_pixels, decoding), np.uint8))

    def text(self, text: str, what: str) -> EncoderInput:
        """Return a text as UTF-8 (N,); messages call it ``what``.

        Raises:
            InputError: it is empty, or not valid Unicode.
        """
        if not isinstance(text, str):
            raise InputError(f"{what} must be a text, got {show(text)}")
        if not is_unicode(text) or not text.strip():
            raise InputError(f"{what} is {'empty' if not text.strip() else 'not valid Unicode'}: leave it out")
        return EncoderInput(np.frombuffer(text.encode(), np.uint8))


class ApiEncoder(Encoder):
    """The frozen encoder behind an API; safe to use from several threads."""

    def __init__(
        self,
        artifact: Artifact,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.monotonic,
        transport: Any = None,
    ) -> None:
        """Make a client; does not connect yet.

        Args:
            artifact: the address of the API and its fingerprint.
            settings: key and timeouts.
            clock: seconds that never go back.
            transport: an httpx transport in place of the network.
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
        """Compare the API's model with the fingerprint if the check is due, and set :attr:`changed`.

        Raises:
            SessionError: the call to the API fails.
        """
        with self._checking:
            if self._clock() < self._next_check:
                return
            from .api_client import describe_change

            try:
                change = describe_change(self.client, self._artifact.manifest.fingerprint)
            except InputError as error:
                raise SessionError(f"{error}. It accepted the same inputs before") from None
            self._next_check = self._clock() + CHECKED_EVERY_S
            host, before = self.client.address.host, self.changed
            self.changed = change and f"the encoder at {host} has another model than the memory: {change}"
            if self.changed and not before:
                log.error("%s. Nothing is stored and queries stay plain until it has that model again", self.changed)
            elif before and not self.changed:
                log.warning("the encoder at %s has the model of the memory again", host)

    def _stack(self, items: list[npt.NDArray[Any]]) -> Any:
        return items  # files differ in size

    def _prepare(self, part: Any, modality: Modality) -> Any:
        """Return the bytes (N,) of each item."""
        if isinstance(part, np.ndarray):
            raise InputError("an API takes neither token ids nor pixels: give texts and images")
        prepare = self.preparation.image if modality == "image" else partial(self.preparation.text, what="a text")
        return [item if isinstance(item, np.ndarray) else prepare(item).array for item in part]

    def _by_length(self, batches: Sequence[Any]) -> Iterator[tuple[npt.NDArray[np.intp], Any]]:
        """Keep the batches, since nothing is padded for an API."""
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
            self._next_check = -np.inf  # the API may come back with another model
            raise
