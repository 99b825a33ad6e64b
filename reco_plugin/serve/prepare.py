"""Texts and images of a request, made ready for the encoder one by one, so that a bad one fails alone."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ImageError, InputError
from ..preparation import EncoderInput
from ..reco import Reco
from .embedding import Item
from .failures import Failure, failure_of
from .images import too_many_bytes
from .pool import still_wanted
from .settings import ServeSettings


class ItemPreparation:
    """Checks, tokenises and decodes items as the model wants them, within the limits of the settings."""

    def __init__(self, reco: Reco, settings: ServeSettings) -> None:
        self._preparation, self._length = reco.encoder.preparation, reco.manifest.text.context_length
        self._most_bytes, self._most_chars = settings.max_image_bytes, settings.max_text_chars

    def __call__(self, items: Sequence[Item], *, truncate: bool) -> list[EncoderInput | Failure]:
        """Make items ready, in order.

        Args:
            items: texts, images and vectors, mixed.
            truncate: False makes a text that is too long fail.

        Raises:
            Refused: nobody waits for the answer any more.
        """
        return [self._one(item, truncate) for item in items]

    def _one(self, item: Item, truncate: bool) -> EncoderInput | Failure:
        still_wanted()
        if isinstance(item.content, str):
            return self._text(item.content, truncate)
        if isinstance(item.content, bytes):
            return self._image(item.content)
        try:
            return self._preparation.vector(item.content, "vectors")
        except InputError as error:
            return Failure(400, "invalid_vector", str(error))

    def _text(self, text: str, truncate: bool) -> EncoderInput | Failure:
        if len(text) > self._most_chars:
            limit = f"the limit is {self._most_chars:,} (max_text_chars)"
            return Failure(413, "text_too_long", f"a text has {len(text):,} characters, {limit}: shorten it")
        try:
            ready = self._preparation.text(text, "a text")
        except InputError as error:
            return Failure(400, "invalid_text", str(error))
        if ready.truncated and not truncate:
            reads = f"the {self._length} tokens that the encoder reads"
            return Failure(400, "text_too_long", f"a text is longer than {reads}: shorten it, or let it be cut")
        return ready

    def _image(self, data: bytes) -> EncoderInput | Failure:
        if len(data) > self._most_bytes:
            return too_many_bytes(len(data), self._most_bytes)
        try:
            return self._preparation.image(data)
        except ImageError as error:
            return failure_of(error.about(f"image 0 ({len(data):,} bytes)"))
