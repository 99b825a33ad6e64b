"""The options of a refinement, as an object and as keywords."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, replace
from types import SimpleNamespace
from typing import Any, get_type_hints

import numpy as np
import pytest

from reco_plugin import Reco
from reco_plugin.errors import InputError
from reco_plugin.request import RefineKeywords, RefineOptions, Search, given_options
from reco_plugin.retrieve import Retrieval, retrieve
from reco_plugin.types import Modality


def test_keywords_and_object_have_the_same_names_and_types() -> None:
    options, keywords = get_type_hints(RefineOptions), get_type_hints(RefineKeywords)
    assert [field.name for field in fields(RefineOptions)] == list(keywords)
    assert options == keywords


def test_the_object_is_what_its_keywords_make() -> None:
    asked = RefineOptions(k=3, search="cross", where={"shop": "de"}, exclude=["a"], explain=True)
    assert RefineOptions(**asked.keywords()) == asked
    assert given_options({"k": 3, "gate": None, "where": {}}) == {"k": 3, "where": {}}


def test_what_a_caller_does_not_say_stays_but_for_conditions() -> None:
    how = Retrieval(5, "uni", "cross", {"shop": "de"})
    assert how.with_options(RefineOptions()) == Retrieval(5, "uni", "cross", None)
    assert how.with_options(RefineOptions(7, "cross", "uni", where={"a": 1})) == Retrieval(7, "cross", "uni", {"a": 1})


@pytest.mark.parametrize(
    ("search", "fusion", "by", "read"),
    [("uni", "cross", "text", "image"), ("uni", "uni", "text", "text"), ("cross", "cross", "image", "image")],
)
def test_a_retrieval_asks_one_search(search: Any, fusion: Any, by: Modality, read: Modality) -> None:
    asked: list[Search] = []
    memory: Any = SimpleNamespace(search=asked.append)
    vectors, exclude = np.zeros((2, 4), np.float32), [["a"], []]
    retrieve(memory, vectors, "text", Retrieval(3, search, fusion, {"shop": "de"}), exclude=exclude, ids=False)
    [it] = asked
    assert it.vectors is vectors  # apart: from Python 3.13 on, comparing dataclasses compares their arrays
    assert replace(it, vectors=[]) == Search([], by, read, 3, exclude, {"shop": "de"}, payloads=False, ids=False)
    with pytest.raises(FrozenInstanceError):
        it.k = 4  # type: ignore[misc]


@pytest.mark.parametrize("refine", [True, False, None])
def test_wrong_options_are_noticed_whether_or_not_anything_is_refined(reco: Reco, refine: bool | None) -> None:
    with pytest.raises(TypeError, match="kk"):
        reco.embed_texts(["a fox"], refine=refine, kk=3)  # type: ignore[call-arg]
    for wrong in ({"k": 0}, {"k": "3"}, {"k": True}, {"search": "both"}, {"fusion": ""}):
        with pytest.raises(InputError, match=f"{next(iter(wrong))} must be"):
            reco.embed_texts(["a fox"], refine=refine, **wrong)  # type: ignore[arg-type]
    assert reco.embed_texts(["a fox"], refine=refine, k=np.int64(3)).shape == (1, reco.manifest.dimension)  # type: ignore[arg-type]
