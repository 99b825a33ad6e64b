"""The wire format: texts, images and vectors in a request, and the JSON of an answer.

Images inside JSON are data URIs or bare base64. The decoder looks at the bytes, because the declared type is often
wrong. Vectors are written from their arrays, without a Python list of floats in between.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson
from fastapi import Response
from pydantic import BaseModel
from pydantic_core import to_json

from ..types import Modality, Vectors
from .failures import Failure, Refused, too_many_bytes

Answer: TypeAlias = BaseModel | Mapping[str, Any] | Sequence[Any] | Vectors
"""What a route answers, before it is written as JSON."""
EMPTY = Failure(400, "empty_text", "a text is empty: leave it out")
IMAGE_AS_TEXT = Failure(
    400,
    "image_as_text",
    "a text is the base64 of a picture: send it as an image, which is a data:image/…;base64, string or"
    ' {"image": …} in /v1/embeddings, and elsewhere the field for images (inputImage, image_base64, images)',
)
_DATA_URI = re.compile(r"data:[^,;]*(?:;[^,;]+)*;base64,", re.IGNORECASE)
_HEADER_CHARS = 256  # longest header of a data URI that is recognized
_SHOWN_CHARS = 40
_IMAGE_STARTS = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR")  # base64 of PNG, JPEG, GIF and WebP
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{16,}={0,2}")
_LINE_CHARS = 60  # of the first line of wrapped base64


@dataclass(frozen=True)
class Item:
    """One text, image or vector to embed."""

    content: str | bytes | Sequence[float] | npt.NDArray[np.float32]
    """A text; an image as a data URI, base64 or its bytes; or a CLIP vector (D,) of this encoder, of norm 1."""
    modality: Modality
    """The modality of the content. For a vector: of what it embeds."""

    @property
    def is_image(self) -> bool:
        """Whether there is an image to decode."""
        return self.modality == "image" and isinstance(self.content, str | bytes)


def numbered(name: str, inputs: Iterable[Sequence[Item]]) -> dict[str, Sequence[Item]]:
    """Name the inputs of a list by their places, as in ``input[3]``.

    A blank text beside another part is left out. Search engines send a document without a title in this way.
    """
    return {f"{name}[{index}]": _without_blank_texts(parts) for index, parts in enumerate(inputs)}


def _without_blank_texts(parts: Sequence[Item]) -> Sequence[Item]:
    if len(parts) < 2:
        return parts
    return [part for part in parts if not isinstance(part.content, str) or part.content.strip()] or parts[:1]


def is_data_uri(text: str) -> bool:
    """Return whether a text is a data URI. Any type counts, since some programs name none for an image.

    >>> is_data_uri("data:;base64,iVBORw0KGgo="), is_data_uri("data: what is it?")
    (True, False)
    """
    return text[:11].lower() == "data:image/" or _DATA_URI.match(text[:_HEADER_CHARS]) is not None


def is_bare_image(text: str) -> bool:
    """Return whether a text is the base64 of a PNG, JPEG, GIF or WebP file.

    >>> is_bare_image("iVBORw0KGgoAAAANSUhEUgAAAAQ"), is_bare_image("iVBORw0KGgo is how a PNG begins")
    (True, False)
    """
    return text.startswith(_IMAGE_STARTS) and _BASE64.fullmatch(text[:_LINE_CHARS].strip()) is not None


def decode_image(text: str, *, max_bytes: int) -> bytes:
    """Decode a data URI or bare base64: padded or not, with line breaks or not, in the standard or URL-safe alphabet.

    The bytes may still be no image. The image decoder reports that.
    """
    header = _DATA_URI.match(text[:_HEADER_CHARS])
    encoded = text[header.end() :] if header else text
    if text[:8].lower().startswith(("http://", "https://")):
        message = (
            f"image URLs are not fetched here: send the image as a data URI or base64, not {text[:_SHOWN_CHARS]!r}"
        )
        raise Refused(Failure(400, "image_url_forbidden", message))
    if len(encoded) > max_bytes * 3 // 2:  # 4/3, and room for line breaks: refused before it is copied
        raise Refused(too_many_bytes(len(encoded) * 3 // 4, max_bytes))
    raw = _decode(encoded) or _decode(_to_standard_base64(encoded))
    if not raw:
        message = f"an image must be a data URI or base64, got {text[:_SHOWN_CHARS]!r} ({len(text):,} characters)"
        raise Refused(Failure(400, "image_not_base64", message))
    return raw


def _decode(encoded: str) -> bytes:
    """Decode strict base64; empty for anything else."""
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _to_standard_base64(encoded: str) -> str:
    """Join lines, pad, and use the standard alphabet. A space within a line stays, so that prose is no base64."""
    packed = "".join(line.strip() for line in encoded.splitlines()).rstrip("=").translate(str.maketrans("-_", "+/"))
    return packed + "=" * (-len(packed) % 4)


def write_vector(vector: npt.NDArray[np.float32], encoding: str | None) -> Any:
    """Return a vector (D,) as it is, or as base64 of little-endian float32, as OpenAI's API has it.

    >>> write_vector(np.array([1.0, 0.0], np.float32), "base64")
    'AACAPwAAAAA='
    """
    if encoding == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
    return vector


def json_response(body: bytes) -> Response:
    """Make a response of JSON that is already written."""
    return Response(body, media_type="application/json")


def with_nulls(answer: BaseModel) -> dict[str, Any]:
    """Return an answer as a dictionary that keeps the fields that are None."""
    return answer.model_dump(mode="json")


def write_json(value: Any) -> bytes:
    """Write an answer as JSON, without the fields of models that are None. NaN and infinity become null.

    >>> write_json({"vector": np.array([0.1, 1.0], np.float32), "score": float("nan")})
    b'{"vector":[0.1,1.0],"score":null}'
    """
    try:
        return orjson.dumps(value, default=_to_plain, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:  # a payload with numbers beyond 64 bits, hundreds of levels, or half of a surrogate pair
        plain = _to_plain(value) if isinstance(value, BaseModel) else value
        return to_json(plain, exclude_none=True, inf_nan_mode="null", fallback=_to_plain)


def _to_plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        fields = {name: getattr(value, name) for name, info in type(value).model_fields.items() if not info.exclude}
        return {name: field for name, field in fields.items() if field is not None}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not written as JSON")
