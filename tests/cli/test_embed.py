"""reco embed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from reco_plugin import Reco

pytestmark = pytest.mark.slow

Run = Callable[..., Result]
TEXTS = ("a large red circle", 'größe – "blau"')


def vectors(result: Result) -> tuple[list[str], np.ndarray]:
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    return [row["input"] for row in rows], np.array([row["embedding"] for row in rows])


def test_embed_is_what_the_library_gives(memory: Path, catalogue: Path, run: Run, model: Path) -> None:
    image = catalogue.parent / "small-green-square.png"
    names, got = vectors(run("embed", "--text", TEXTS[0], "--text", TEXTS[1], "--image", image, "--json"))
    assert names == [*TEXTS, str(image)]
    with Reco.open(model, memory=memory) as reco:
        refined = np.concatenate([reco.embed_texts(TEXTS), reco.embed_images([image])])
        frozen = np.concatenate([reco.embed_texts(TEXTS, refine=False), reco.embed_images([image], refine=False)])
    np.testing.assert_allclose(got, refined, atol=1e-6)
    assert np.abs(got[0] - frozen[0]).max() > 1e-2  # the memory knows this caption


def test_plain_is_frozen_and_needs_no_memory(work: Path, run: Run, model: Path) -> None:
    _, got = vectors(run("embed", "--text", TEXTS[0], "--plain", "--json"))
    with Reco.open(model, memory=":memory:") as reco:
        np.testing.assert_allclose(got, reco.encoder.texts([TEXTS[0]]), atol=1e-6)
    assert list(work.iterdir()) == []


def test_an_empty_memory_is_a_warning(work: Path, run: Run, model: Path) -> None:
    with Reco.open(model, memory=work / "bare"):
        pass
    result = run("embed", "--text", TEXTS[0], "--memory", "bare", "--json")
    assert "warning: the memory is empty" in result.stderr
    assert vectors(result)[1] == pytest.approx(
        vectors(run("embed", "--text", TEXTS[0], "--plain", "--json"))[1], abs=1e-6
    )


def test_role_and_refine_choose_what_the_policy_says(memory: Path, catalogue: Path, run: Run) -> None:
    """The quickstart model does not refine candidate images unless a flag says so."""
    image = ("embed", "--image", catalogue.parent / "small-green-square.png", "--target", "text", "--json")
    _, plain = vectors(run(*image, "--plain"))
    _, query = vectors(run(*image))
    _, candidate = vectors(run(*image, "--role", "candidate"))
    np.testing.assert_array_equal(candidate, plain)
    assert np.abs(query - plain).max() > 1e-3


def test_input_and_out(memory: Path, work: Path, run: Run, ask: Callable[..., Any]) -> None:
    (work / "queries.txt").write_text("a red circle\n\n  a blue square  \n", encoding="utf-8")
    assert ask("embed", "--input", "queries.txt", "--out", "vectors.npy") == {"file": "vectors.npy", "shape": [2, 128]}
    written = np.load(work / "vectors.npy")
    assert (written.shape, written.dtype) == ((2, 128), np.float32)
    names, shown = vectors(run("embed", "--input", "queries.txt", "--json"))
    assert names == ["a red circle", "a blue square"]
    np.testing.assert_allclose(written, shown, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give --text, --image or --input"),
        (("--text", "x", "--out", "no/such/folder/x.npy"), "cannot be written: No such file or directory"),
        (("--text", "x", "--memory", "typo"), "there is no memory at 'typo'"),
    ],
)
def test_errors_are_one_line(
    memory: Path, work: Path, fail: Callable[..., str], arguments: tuple[str, ...], message: str
) -> None:
    assert message in fail("embed", *arguments)
    assert [path.name for path in work.iterdir()] == ["memory"]
