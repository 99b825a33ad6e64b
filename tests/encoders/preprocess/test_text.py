"""Token ids of the shipped model: where texts end and are cut, and what is refused; test_text_twins.py compares ids."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from reco_plugin.encoders.model_folder import Artifact
from reco_plugin.encoders.preprocess import TextConfig, Tokenizer, cut_by_length, cut_to_longest
from reco_plugin.errors import ArtifactError, ConfigError, InputError

STORED = TypeAdapter(TextConfig)
"""Reads a config as the manifest does."""


@pytest.fixture(scope="module")
def exported(model: Path) -> tuple[str, TextConfig]:
    """The tokenizer's file and its config, of 20 tokens."""
    artifact = Artifact.load(model)
    return artifact.tokenizer.read_text("utf-8"), artifact.manifest.text


@pytest.fixture(scope="module")
def tokenizer(exported: tuple[str, TextConfig]) -> Tokenizer:
    return Tokenizer(*exported)


def test_a_text_has_a_beginning_an_end_and_says_whether_it_was_cut(tokenizer: Tokenizer) -> None:
    tokens = tokenizer(["a " * 18, "a " * 19, "", "<end_of_text> " * 99])
    assert tokens.truncated.tolist() == [False, True, False, True]
    assert tokens.ids[:, 0].tolist() == [4094] * 4
    assert tokens.ids[:, -1].tolist() == [4095, 4095, 0, 4095]
    assert tokens.ids[2].tolist() == [4094, 4095] + [0] * 18


def test_a_long_text_is_read_as_far_as_the_context_goes(tokenizer: Tokenizer) -> None:
    long = tokenizer(["a cat " + "e" + "\u0301\u0323" * 50_000])
    assert long.truncated.tolist() == [True] and long.ids[0, 1:3].tolist() == tokenizer(["a cat"]).ids[0, 1:3].tolist()


@pytest.mark.parametrize(("words", "expected"), [(0, 16), (14, 16), (15, 20), (99, 20)])
def test_cut_rounds_up_to_a_bucket(
    words: int, expected: int, exported: tuple[str, TextConfig], tokenizer: Tokenizer
) -> None:
    ids = tokenizer(["a", "a " * words]).ids
    cut = cut_to_longest(ids, exported[1])
    assert cut.shape == (2, expected) and cut.dtype == np.int32
    assert (ids[:, :expected] == cut).all() and not ids[:, expected:].any()


def test_texts_are_cut_with_those_of_their_length() -> None:
    config = TextConfig("clip", 77, "lower", pad_id=0, end_id=9, dynamic=True)
    ends = [3, 70, 20, 15, 16, 40, 5]
    ids = np.ones((len(ends), 77), np.int32)
    ids[range(len(ends)), ends] = 9
    parts = cut_by_length(ids, config)
    assert [(rows.tolist(), cut.shape[1]) for rows, cut in parts] == [
        ([0, 3, 6], 16),
        ([2, 4], 32),
        ([5], 48),
        ([1], 77),
    ]
    assert all((ids[rows, : cut.shape[1]] == cut).all() for rows, cut in parts)
    few = cut_by_length(ids[[0, 2]], config)  # one more call of the graph would cost more than the padding
    assert [(rows.tolist(), cut.shape) for rows, cut in few] == [([0, 1], (2, 32))]
    own = cut_by_length(ids, config, exact=True)
    assert [(rows.tolist(), cut.shape[1]) for rows, cut in own] == [([0, 6], 6), ([2, 3, 4], 21), ([5], 41), ([1], 71)]
    assert all((ids[rows, : cut.shape[1]] == cut).all() for rows, cut in own)
    for exact in (False, True):
        whole = cut_by_length(ids, replace(config, dynamic=False), exact=exact)
        assert [(rows.tolist(), cut.shape) for rows, cut in whole] == [([*range(7)], (7, 77))]


def test_lengths_are_the_buckets_below_the_context_length_and_itself() -> None:
    config = TextConfig("clip", 20, "lower", pad_id=0, end_id=9, dynamic=True, buckets=(32, 16, 8))
    assert config.lengths == (8, 16, 20)
    assert replace(config, dynamic=False).lengths == (20,)


@pytest.mark.parametrize("texts", ["a cat", ["a", b"cat"]], ids=repr)
def test_wrong_texts_are_refused(tokenizer: Tokenizer, texts: Any) -> None:
    with pytest.raises(InputError):
        tokenizer(texts)


def test_wrong_file_is_refused(exported: tuple[str, TextConfig], tmp_path: Path) -> None:
    content, config = exported
    (tmp_path / "cut.json").write_text(content[:1000], "utf-8")
    wrong: list[tuple[Path | str, TextConfig]] = [
        (tmp_path / "none.json", config),
        (tmp_path / "cut.json", config),
        ("{}", config),
        (content, replace(config, end_id=5)),
        (content, TextConfig("hf", 77, "lower", pad_id=0)),
    ]
    for source, of in wrong:
        with pytest.raises(ArtifactError):
            Tokenizer(source, of)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "bpe"},
        {"end_id": None},
        {"kind": "hf"},
    ],
    ids=repr,
)
def test_wrong_config_is_refused_where_it_is_read(change: dict[str, Any]) -> None:
    good = TextConfig("clip", 77, "lower", pad_id=0, end_id=9)
    assert STORED.validate_python(good.to_dict()) == good
    with pytest.raises((ConfigError, ValidationError)):
        STORED.validate_python(good.to_dict() | change)
