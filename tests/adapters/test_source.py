"""What all adapters lean on: nothing is opened early, nothing twice, and each side is refined as was said."""

from __future__ import annotations

import subprocess
import sys
from itertools import product
from textwrap import dedent

import numpy as np
import pytest
from shapes import COLOURS, SHAPES, draw

from reco_plugin import Pair, Reco
from reco_plugin.adapters.base import VectorSource
from reco_plugin.errors import ConfigError, InputError

TEXTS = ["a small red circle", "a large blue square"]


def test_queries_are_refined_for_what_the_index_holds_and_documents_are_not(stocked, drawings):
    """The memory is too small to say how far a query moves among its own modality: there it stays."""
    pictures = [pair.image for pair in drawings[:3]]
    texts = {refine: stocked.embed_texts(TEXTS, refine=refine) for refine in (False, True)}
    images = {refine: stocked.embed_images(pictures, refine=refine, target="text") for refine in (False, True)}
    assert np.abs(texts[True] - texts[False]).max() > 0.01 and np.abs(images[True] - images[False]).max() > 0.01
    for index in ("images", "texts"):
        source = VectorSource(stocked, index=index)
        assert np.array_equal(source.texts(TEXTS, "query"), texts[index == "images"])
        assert np.array_equal(source.images(pictures, "query"), images[index == "texts"])
        assert np.array_equal(source.texts(TEXTS, "document"), texts[False])
        assert np.array_equal(source.images(pictures, "document"), images[False])
        told = VectorSource(stocked, index=index, refine_queries=False)
        assert np.array_equal(told.texts(TEXTS, "query"), texts[False])
    assert np.array_equal(VectorSource(stocked, index="both").images(pictures, "query"), images[False])
    assert np.array_equal(VectorSource(stocked).texts(TEXTS, "query"), texts[False]), "it is taken to hold texts"


def recall_at_1(queries, documents):
    return float(np.mean(np.argmax(queries @ documents.T, axis=1) == np.arange(len(documents))))


@pytest.mark.slow
def test_queries_find_more_across_modalities_and_hardly_less_within_one(model):
    """48 shapes, 312 in the memory; refined for the other modality, a query finds less among its own."""
    memory = [
        Pair(f"{radius}-{colour}-{shape}", draw(colour, shape, radius), f"a {size(radius)} {colour} {shape}")
        for radius in range(5, 31)
        for colour, shape in product(COLOURS, SHAPES)
    ]
    known = [(radius, colour, shape) for radius in (6, 12, 20, 28) for colour, shape in product(COLOURS, SHAPES)]
    captions = [f"a {size(radius)} {colour} {shape}" for radius, colour, shape in known]
    names = [f"{size(radius)} {shape} in {colour}" for radius, colour, shape in known]
    pictures = [draw(colour, shape, radius) for radius, colour, shape in known]
    others = [draw(colour, shape, radius + 2) for radius, colour, shape in known]
    with Reco.open(model, memory=":memory:") as reco:
        reco.memory.add(memory)
        found = {}
        for index in ("texts", "images"):
            side, never = VectorSource(reco, index=index), VectorSource(reco, index=index, refine_queries=False)
            documents = side.texts(captions, "document") if index == "texts" else side.images(pictures, "document")
            other = {kind: VectorSource(reco, index=kind) for kind in ("images", "texts")}
            found["texts", index] = [
                recall_at_1(one.texts(names, "query"), documents) for one in (never, other["images"], side)
            ]
            found["images", index] = [
                recall_at_1(one.images(others, "query"), documents) for one in (never, other["texts"], side)
            ]
    for (what, index), (plain, refined, ours) in found.items():
        if what == index:
            assert refined < plain and ours >= plain - 0.07, (what, index, found)
        else:
            assert refined > plain + 0.03 and ours == refined, (what, index, found)


def size(radius):
    return ("tiny", "middling", "large", "huge")[radius // 8]


@pytest.mark.parametrize("items", [(text for text in TEXTS), set(TEXTS)])
def test_what_is_no_list_is_named(items):
    source = VectorSource(settings={"model": "there is none"})
    with pytest.raises(InputError, match="texts must be a list of texts, got"):
        source.texts(items, "document")
    with pytest.raises(InputError, match="images must be a list of images, got"):
        source.images(items, "document")


def test_what_was_opened_here_is_closed_here_and_opens_again(on_disk):
    source = VectorSource(settings=on_disk, index="images")
    before = source.texts(TEXTS, "query")
    source.close()
    with Reco.open(**on_disk) as other:  # the memory is free
        assert np.array_equal(other.embed_texts(TEXTS, refine=True), before)
    assert np.array_equal(source.texts(TEXTS, "query"), before)
    source.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"url": "http://localhost", "settings": {}}, "exclude one another"),
        ({"reco": "http://reco:8080"}, "reco must be an opened Reco or Client"),
        ({"api_key": "k"}, "api_key is for a service"),
    ],
)
def test_vectors_come_from_one_place(arguments, message):
    with pytest.raises(ConfigError, match=message):
        VectorSource(**arguments)


def test_frameworks_that_are_missing_are_named_with_the_line_that_installs_them():
    code = """
        import sys
        from reco_plugin.errors import MissingExtra
        for package in ("langchain_core", "llama_index", "haystack"):
            sys.modules[package] = None
        for module in ("langchain", "llamaindex", "haystack"):
            try:
                __import__(f"reco_plugin.adapters.{module}")
            except MissingExtra as error:
                print(error)
        """
    ended = subprocess.run([sys.executable, "-c", dedent(code)], capture_output=True, text=True, check=True)
    for line, extra in zip(ended.stdout.splitlines(), ("langchain", "llamaindex", "haystack"), strict=True):
        assert line.startswith("this adapter needs") and f"pip install 'reco-plugin[{extra}]'" in line
