"""The options of a memory: what they take, and that each is documented."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from reco_plugin.settings import MemoryOptions

DOCS = Path(__file__).resolve().parents[2] / "docs" / "memory.md"


def test_every_option_is_in_the_documentation() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert [name for name in MemoryOptions.model_fields if f"`{name}`" not in text] == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"timeout_s": 0},
        {"search": 2},
        {"create_collection": "x"},
    ],
    ids=str,
)
def test_what_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(reversed(wrong))):
        MemoryOptions(**wrong)


def test_text_as_variables_and_the_command_line_give_it() -> None:
    read = MemoryOptions.model_validate({"search_ef": "6", "exact": "true", "refresh_s": "0.5", "ca_file": "ca.pem"})
    assert (read.search_ef, read.exact, read.refresh_s, read.ca_file) == (6, True, 0.5, Path("ca.pem"))
