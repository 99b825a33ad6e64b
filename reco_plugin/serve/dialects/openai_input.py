"""Items of ``input`` in ``/v1/embeddings``: texts, Jina's objects, ``data:image/…`` strings; token ids are refused."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, ValidationInfo

from ..failures import Failure, Refused
from ..schemas import Items, Strict, few
from .inputs import Part, Picture

WORDS = 'a text, a data:image/… string, {"text": …}, {"image": …}, or a list of these'
"""What an item may be, for messages and the OpenAPI document."""
_NO_IDS = (
    "token ids are not read, since the tokenizer here is CLIP's: send texts"
    " (in LangChain's OpenAIEmbeddings, set check_embedding_ctx_length=False)"
)
_KINDS = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", list: "a list in a list"}


class TextInput(Strict):
    """Jina's text."""

    text: str


class ImageInput(Strict):
    """Jina's image: data URI, base64, or a URL where the service fetches them."""

    image: str


def known(value: Any, info: ValidationInfo) -> Any:
    """Say what an input may be, in one sentence; pydantic would say it once per alternative, and per item.

    Raises:
        ValueError: no input, or none of those.
        Refused: token ids (400), or too many items (413).
    """
    items = value if isinstance(value, list) else [value]
    if not items:
        raise ValueError(f"the list is empty; give {WORDS}")
    if _are_ids(items) or (all(isinstance(one, list) for one in items) and all(map(_are_ids, items))):
        raise Refused(Failure(400, "token_ids_refused", _NO_IDS, "input"))
    few(value, info)
    for index, one in enumerate(items):
        if not (isinstance(one, str) or _is_object(one)):
            raise ValueError(f"item {index} is {_KINDS.get(type(one), 'another object')}; give {WORDS}")
    return value


def _are_ids(items: list[Any]) -> bool:
    return bool(items) and all(type(one) is int for one in items)


def _is_object(one: Any) -> bool:
    return isinstance(one, dict) and [*one] in (["text"], ["image"]) and isinstance(next(iter(one.values())), str)


One: TypeAlias = str | TextInput | ImageInput
Input: TypeAlias = Annotated[One | Items[One], BeforeValidator(known)]
"""The field."""


def part_of(one: One, *, is_image: bool) -> Part:
    """An item as a part.

    Args:
        one: an item of a checked input.
        is_image: whether a string is an image, also without the beginning of a data URI.
    """
    match one:
        case str():
            return Picture(one) if is_image or one[:11].lower() == "data:image/" else one
        case TextInput():
            return one.text
        case ImageInput():
            return Picture(one.image)
