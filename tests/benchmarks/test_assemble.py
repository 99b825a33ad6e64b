"""How candidates become a data set, on pictures that one can draw in the head."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from benchmarks.drawings.render import kept
from benchmarks.sets import assemble as module
from benchmarks.sets.assemble import Picture, alike, assemble, caption, visible
from benchmarks.sets.package_set import Entity

QUERY = ("ask",)


def bar(column: int, width: int = 8, shade: int = 0) -> np.ndarray:
    """A vertical bar on white, 64 x 64."""
    image = np.full((64, 64, 3), 255, np.uint8)
    image[:, column : column + width] = shade
    return image


def made(monkeypatch: pytest.MonkeyPatch, drawings: dict[tuple[str, str], np.ndarray], met: str = "") -> dict:
    """Assemble; returns (entity, style) -> family of what is left."""
    monkeypatch.setattr(module, "MET_IN_PRETRAINING", {"toy": frozenset(met)})
    keys = dict.fromkeys(key for key, _ in drawings)
    data = assemble(
        "toy",
        [Entity(key, (f"thing {key}",), (), "dev") for key in keys],
        [Picture(key, style, style) for key, style in drawings],
        np.stack([*drawings.values()]),
        query_styles=QUERY,
        templates=("{}",),
    )
    assert [entity.key for entity in data.entities] == list(dict.fromkeys(item.entity for item in data.items))
    for image, item in zip(data.images, data.items, strict=True):
        assert np.array_equal(image, drawings[item.entity, item.style])
        assert item.caption == f"thing {item.entity}"
    return {(item.entity, item.style): item.family for item in data.items}


FULL = {("a", "ask"): bar(0), ("a", "one"): bar(10), ("a", "two"): bar(20)}


def test_what_can_be_asked_for_and_found_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    assert made(monkeypatch, FULL) == {("a", "ask"): "ask", ("a", "one"): "one", ("a", "two"): "two"}


def test_a_blank_drawing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    assert made(monkeypatch, FULL | {("a", "three"): bar(30, shade=250)}) == made(monkeypatch, FULL)


def test_a_copy_of_a_query_is_dropped_from_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert made(monkeypatch, FULL | {("a", "three"): bar(0, shade=20)}) == made(monkeypatch, FULL)


def test_copies_in_the_memory_share_a_family(monkeypatch: pytest.MonkeyPatch) -> None:
    families = made(monkeypatch, FULL | {("a", "three"): bar(10, shade=20)})
    assert families["a", "three"] == families["a", "one"] == "one"


@pytest.mark.parametrize(
    "missing", [("a", "ask"), ("a", "one")], ids=["nothing asks", "one author alone is in the memory"]
)
def test_an_entity_that_lacks_something_is_dropped(missing: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    other = {("b", style): bar(column, 12) for (_, style), column in zip(FULL, (30, 40, 50), strict=True)}
    assert {key for key, _ in made(monkeypatch, {k: v for k, v in FULL.items() if k != missing} | other)} == {"b"}


def test_two_copies_are_one_author(monkeypatch: pytest.MonkeyPatch) -> None:
    other = {("b", style): bar(column, 12) for (_, style), column in zip(FULL, (30, 40, 50), strict=True)}
    assert {key for key, _ in made(monkeypatch, FULL | {("a", "two"): bar(10)} | other)} == {"b"}


def test_of_two_that_look_the_same_in_half_of_the_styles_the_earlier_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    half = FULL | {("a", "three"): bar(30)}
    later = {("b", "ask"): bar(0), ("b", "one"): bar(10), ("b", "two"): bar(40), ("b", "three"): bar(50)}
    assert {key for key, _ in made(monkeypatch, half | later)} == {"a"}
    less = later | {("b", "one"): bar(56)}
    assert {key for key, _ in made(monkeypatch, half | less)} == {"a", "b"}


def test_what_pretraining_met_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    other = {("b", style): bar(column, 12) for (_, style), column in zip(FULL, (30, 40, 50), strict=True)}
    assert {key for key, _ in made(monkeypatch, FULL | other, met="a")} == {"b"}


def test_alike_tolerates_shades_and_no_shift() -> None:
    same = alike(np.stack([bar(0), bar(0, shade=30), bar(0, shade=31), bar(1), bar(30)]))
    assert same[0].tolist() == [True, True, False, False, False]  # 30 / 255 < 0.12 < 31 / 255
    assert np.array_equal(same, same.T) and same.diagonal().all()


def test_one_per_cent_of_ink_is_visible() -> None:
    assert visible(np.stack([bar(0, 1), bar(0, 1, 250), bar(0, 0)])).tolist() == [True, False, False]


def test_pictures_are_made_once_for_equal_content(tmp_path: Path) -> None:
    calls: list[int] = []

    def make() -> np.ndarray:
        calls.append(1)
        return np.full((1, 2, 2, 3), len(calls), np.uint8)

    first = kept(tmp_path / "images", ["x"], make)
    assert np.array_equal(kept(tmp_path / "images", ["x"], make), first) and len(calls) == 1
    assert kept(tmp_path / "images", ["y"], make).max() == 2


def test_a_failed_drawing_leaves_no_file(tmp_path: Path) -> None:
    def fail() -> np.ndarray:
        raise OSError("out of memory")

    with pytest.raises(OSError, match="out of memory"):
        kept(tmp_path, ["x"], fail)
    assert list(tmp_path.iterdir()) == []


def test_captions_vary_with_style_and_stay_for_good() -> None:
    told = [caption("de", f"style {n}", ["Germany", "BRD"], ["Berlin"], ["{}", "flag of {}"]) for n in range(400)]
    assert told == [
        caption("de", f"style {n}", ["Germany", "BRD"], ["Berlin"], ["{}", "flag of {}"]) for n in range(400)
    ]
    assert set(told) == {
        *("Berlin", "Germany", "BRD", "flag of Germany", "flag of BRD"),
        *("Germany, Berlin", "BRD, Berlin", "flag of Germany, Berlin", "flag of BRD, Berlin"),
    }
    assert sum(text == "Berlin" for text in told) / 400 == pytest.approx(0.15, abs=0.06)
    usual = sum("Germany" in text for text in told)
    assert usual / (usual + sum("BRD" in text for text in told)) == pytest.approx(0.7, abs=0.08)


BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
WITH_EXAMPLES = [path for path in sorted(BENCHMARKS.rglob("*.py")) if ">>>" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: path.relative_to(BENCHMARKS).as_posix())
def test_examples(path: Path) -> None:
    name = path.relative_to(BENCHMARKS.parent).with_suffix("").as_posix().replace("/", ".")
    result = doctest.testmod(import_module(name))
    assert result.attempted > 0 and result.failed == 0
