"""The options of a refinement, as an object and as keywords."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import FrozenInstanceError
from textwrap import dedent

import numpy as np
import pytest

from reco_plugin import Reco
from reco_plugin.errors import InputError
from reco_plugin.options import RefineDefaults, RefineHow, RefineOptions, check_options, given_options, options_of
from reco_plugin.types import Search


def test_an_option_is_stated_once_and_is_a_setting_a_flag_a_field_of_requests_and_a_keyword() -> None:
    """One more line in the record, and one that uses it, are all that a new option takes."""
    code = """
        from typing import Annotated, Any
        import reco_plugin.options as options

        def refuse(name: str, value: Any) -> None:
            if value == "grey":
                raise options.InputError(f"{name} must be no grey")

        said = options.Option("The colour.", check=refuse, unset="none")
        options.RefineDefaults.__annotations__["tint"] = Annotated[str | None, said]
        for kind in (options.RefineHow, options.RefineOptions):
            kind.__annotations__["tint"] = Annotated[str | None, said]

        from reco_plugin.cli.shared import flags_of
        from reco_plugin.settings import Settings, load_settings
        from reco_plugin.fusion.refiner import Refiner
        from reco_plugin.serve.refine_routes import RefineRequest

        assert "tint" in {flag.name for flag in flags_of(options.RefineOptions)}
        assert load_settings(tint="red").refining == {"tint": "red"}
        assert RefineRequest(vectors=[[1.0]], modality="text", tint="red").options() == {"tint": "red"}
        assert "tint" in RefineRequest.model_json_schema()["properties"]
        assert Refiner(None, None, tint="red").ask([[1.0]], "text", "query", {})[1].how["tint"] == "red"
        for make in (
            lambda: options.check_options({"tint": "grey"}),
            lambda: load_settings(tint="grey"),
            lambda: RefineRequest(vectors=[[1.0]], modality="text", tint="grey"),
        ):
            try:
                make()
            except Exception as error:
                assert "tint" in str(error) and "no grey" in str(error), error
            else:
                raise AssertionError("it was not refused")
        """
    done = subprocess.run([sys.executable, "-c", dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_is_not_given_is_left_to_the_model() -> None:
    assert given_options({"k": 3, "gate": None, "where": {}}) == {"k": 3, "where": {}}
    assert check_options({"k": 3, "gate": None, "where": {}}) == {"k": 3, "where": {}}
    assert set(options_of(RefineDefaults)) < set(options_of(RefineHow)) < set(options_of(RefineOptions))


def test_a_search_stays_as_it_was_asked() -> None:
    it = Search(np.zeros((2, 4), np.float32), "text", "image", 3)
    with pytest.raises(FrozenInstanceError):
        it.k = 4  # type: ignore[misc]


@pytest.mark.parametrize("refine", [True, False])
def test_wrong_options_are_noticed_whether_or_not_anything_is_refined(reco: Reco, refine: bool) -> None:
    with pytest.raises(TypeError, match="kk"):
        reco.embed_texts(["a fox"], refine=refine, kk=3)  # type: ignore[call-arg]
    for wrong in ({"k": 0}, {"k": "3"}, {"k": True}, {"fuser": "both"}, {"target": ""}):
        with pytest.raises(InputError, match=f"{next(iter(wrong))} must be"):
            reco.embed_texts(["a fox"], refine=refine, **wrong)  # type: ignore[arg-type]
    assert reco.embed_texts(["a fox"], refine=refine, k=np.int64(3)).shape == (1, reco.manifest.dimension)  # type: ignore[arg-type]
