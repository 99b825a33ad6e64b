"""A query of the user's own, in the engine's language, with the vector left open."""

from __future__ import annotations

import re
from collections.abc import Callable

from ..errors import ConfigError
from .base import Question

_OPEN = re.compile(r"([\"']?)\{\{\s*(vector|text|k)\s*\}\}\1")


def check_template(template: str) -> None:
    """Check that a template leaves the vector open.

    Raises:
        ConfigError: it does not.
    """
    if not any(match[2] == "vector" for match in _OPEN.finditer(template)):
        raise ConfigError(
            "the template leaves no vector open: write {{vector}} where your query has its vector, and {{text}} and "
            "{{k}} where it has the words and the number of hits"
        )


def fill(question: Question, *, vector: str, quote: Callable[[str], str]) -> str:
    """The template of a question with its values in it; quotes around a place are taken as part of it.

    Args:
        question: one with a template.
        vector: as the engine's language writes it.
        quote: writes a text as a literal of that language.

    Raises:
        ConfigError: the template leaves no vector open.
    """
    template = question.template or ""
    check_template(template)
    values = {"vector": vector, "text": quote(question.text or ""), "k": str(question.k)}
    return _OPEN.sub(lambda match: values[match[2]], template)
