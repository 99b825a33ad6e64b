"""The embedder of the service against Reco itself; sides, aliases and prefixes; items that fail alone."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reco_plugin import Reco
from reco_plugin.options import RefineOptions
from reco_plugin.serve.embedder import Embedder, EmbedRequest, should_refine
from reco_plugin.serve.failures import Refused
from reco_plugin.serve.service_settings import ServeSettings
from reco_plugin.serve.wire import Item, numbered

TEXTS = ["a small red circle", "a large blue square", "something else"]
TEXT_ITEMS = [Item(text, "text") for text in TEXTS]


def png(colour: str = "red", size: tuple[int, int] = (40, 30)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def embedder(filled: Reco) -> Embedder:
    return Embedder(filled, ServeSettings())


def request_of(*items: Item, **options: Any) -> EmbedRequest:
    return EmbedRequest(numbered("input", ([item] for item in items)), **options)


def texts(*words: str, **options: Any) -> EmbedRequest:
    return request_of(*(Item(word, "text") for word in words or TEXTS), **options)


def test_plain_vectors_are_those_of_the_encoder_bit_by_bit(embedder, filled):
    images = [png("red"), png("blue", (1, 1)), png("green", (300, 200))]
    answer = embedder.embed(request_of(*TEXT_ITEMS, *(Item(image, "image") for image in images), model="clip"))
    assert [(row.refined, row.moved) for row in answer.rows] == [(False, 0.0)] * 6
    assert np.array_equal(answer.vectors[:3], filled.embed_texts(TEXTS, refine=False))
    assert np.array_equal(answer.vectors[3:], filled.embed_images(images, refine=False))


def test_refined_vectors_are_those_of_reco(embedder, filled):
    images = [png("red"), png("blue")]
    items = [*TEXT_ITEMS, *(Item(image, "image") for image in images)]
    answer = embedder.embed(request_of(*items, model="clip-reco-query"))
    assert all(row.refined and not row.plain for row in answer.rows[:2])
    for row in answer.rows:  # moved, or left plain with a reason
        assert row.refined == (row.moved > 1e-6) == (not row.plain)
    assert np.allclose(answer.vectors[:3], filled.embed_texts(TEXTS, refine=True), atol=1e-6)
    assert np.allclose(answer.vectors[3:], filled.embed_images(images, refine=True, target="image"), atol=1e-6)
    assert np.array_equal([row.frozen for row in answer.rows[:3]], filled.embed_texts(TEXTS, refine=False))


def test_options_reach_the_refinement(embedder, filled):
    where = {"colour": "green"}
    answer = embedder.embed(texts(refine=True, explain=True, options=RefineOptions(k=2, where=where)))
    assert [len(row.used) for row in answer.rows] == [2, 2, 2]
    assert {used.payload["colour"] for row in answer.rows for used in row.used} == {"green"}
    found = {used.id for row in answer.rows for used in row.used}
    hidden = embedder.embed(texts(refine=True, explain=True, options=RefineOptions(exclude=tuple(found))))
    assert not found & {used.id for row in hidden.rows for used in row.used}


@pytest.mark.parametrize(
    ("item", "code"),
    [
        (Item(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image"), "image_decode_failed"),
        (Item(png()[:60], "image"), "image_decode_failed"),
        (Item("http://elsewhere.example/x.png", "image"), "image_url_forbidden"),
        (Item([0.0] * 128, "text"), "invalid_vector"),
        (Item([float("nan")] * 128, "image"), "invalid_vector"),
        (Item([10**300] * 128, "image"), "invalid_vector"),
        (Item([1.0] * 3, "image"), "invalid_vector"),
        (Item("half \ud83d", "text"), "invalid_input"),
        (Item(" ", "text"), "empty_text"),
    ],
)
def test_a_bad_item_is_named(embedder, item, code):
    with pytest.raises(Refused, match=r"input\[2\]: ") as refused:
        embedder.embed(request_of(*TEXT_ITEMS[:2], item, Item("x" * 60_000, "text"), model="clip-reco-query"))
    assert (refused.value.failure.code, refused.value.failure.param) == (code, "input[2]")


def test_a_long_text_is_cut_and_says_so_or_is_refused(embedder, filled):
    length = filled.manifest.text.context_length
    long = "red " * 10 * length
    answer = embedder.embed(texts("red", long, "", "🦊 שלום", empty_texts=True))
    assert [row.truncated for row in answer.rows] == [False, True, False, False]
    assert (answer.rows[1].tokens, answer.rows[2].tokens) == (length, 2)  # an empty text is framed by start and end
    assert answer.tokens == sum(row.tokens for row in answer.rows)
    for text in (long, "red" + " " * 50_000 + "fox"):
        with pytest.raises(Refused) as refused:
            embedder.embed(texts("red", text, truncate=False))
        assert (refused.value.failure.code, refused.value.failure.param) == ("text_too_long", "input[1]")


def test_a_request_without_inputs_is_refused(embedder):
    with pytest.raises(Refused) as refused:
        embedder.embed(request_of())
    assert (refused.value.failure.status, refused.value.failure.code) == (400, "empty_input")


@pytest.mark.parametrize(
    ("options", "targets"),
    [
        ({}, ("image", None)),
        ({"options": {"target": "text"}}, (None, "text")),
    ],
)
def test_a_query_is_refined_for_what_it_is_compared_with(embedder, options, targets):
    """An index is of images unless the request says otherwise: a query of its modality stays plain, with the reason."""
    answer = embedder.embed(request_of(Item("red", "text"), Item(png(), "image"), model="clip-reco-query", **options))
    for row, modality, target in zip(answer.rows, ("text", "image"), targets, strict=True):
        assert row.refined == (target is not None), row.plain
        assert target is not None or f"{modality} queries that are compared with {modality}s stay plain" in row.plain
    assert answer.target == next(filter(None, targets))


@pytest.mark.parametrize(
    ("refine", "mode", "input_type", "refined"),
    [
        (None, None, None, False),  # nothing decides
        (None, None, "query", True),
        (None, None, "document", False),
        (True, None, "document", True),
        (None, "plain", "query", False),
        (None, "refined", "query", True),
        (None, "refined", "document", False),
        (None, "refined", None, True),  # the prefix: an alias would need a role
        (None, "query", None, True),
        (None, "query", "document", False),
        (True, "plain", None, True),
        (False, "refined", "query", False),
    ],
)
def test_which_rule_decides(refine, mode, input_type, refined):
    assert should_refine(refine, mode, input_type) is refined


@pytest.mark.parametrize(
    ("alias", "prefix", "refined"), [("clip", "refined", True), ("clip-reco-query", "plain", False)]
)
def test_the_prefix_overrules_the_alias(embedder, alias, prefix, refined):
    answer = embedder.embed(texts(TEXTS[0], model=alias), prefix)
    assert (answer.target is not None) is refined
