"""The playground's own routes: files, comparison, pictures; test_page_browser has what a browser makes of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from holes import copy_folder
from PIL import Image
from starlette.testclient import TestClient
from typer.testing import CliRunner

from reco_plugin import Pair, Reco
from reco_plugin.cli.app import app
from reco_plugin.encoders.preprocess import ImageConfig
from reco_plugin.encoders.preprocess.image import thumbnail
from reco_plugin.errors import MemoryUnavailable
from reco_plugin.serve.playground.comparison import PairPictures

pytestmark = pytest.mark.slow

STATIC = {entry.name: entry.read_text() for entry in (files("reco_plugin.serve.playground") / "static").iterdir()}
CONFIG = ImageConfig((64, 64))


def compare(client: TestClient, text: str | None = None, **fields: Any) -> Any:
    body = {"input": {"text": text}, **fields} if text is not None else fields
    return client.post("/page/compare", json=body)


# --- files -------------------------------------------------------------------------------------------------------


class Tags(HTMLParser):
    """Collects what a page loads and what it would run in place."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.loaded += [value for name in ("src", "href") if (value := given.get(name)) and not value.startswith("#")]
        self.inline += [name for name in given if name.startswith("on") or name == "style"]
        self.inline += [tag] if tag == "style" or (tag == "script" and "src" not in given) else []


def test_everything_that_the_page_loads_is_served_here_and_nothing_stands_in_line(filled: Reco, served: Any) -> None:
    tags = Tags()
    tags.feed(STATIC["index.html"])
    assert tags.loaded
    assert tags.inline == []
    with served(filled, page=True) as client:
        page = client.get("/")
        assert page.text == STATIC["index.html"]
        for place in tags.loaded:
            assert client.get(f"/{place}").status_code == 200, place
        for name, body in STATIC.items():
            answer = client.get(f"/page/files/{name}")
            assert answer.text == body
            assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_browser_may_load_nothing_from_elsewhere(filled: Reco, served: Any) -> None:
    with served(filled, page=True) as client:
        rules = dict(rule.split(" ", 1) for rule in client.get("/").headers["content-security-policy"].split("; "))
    assert rules["default-src"] == "'none'"
    assert {name: rules[name] for name in ("script-src", "style-src", "connect-src")} == dict.fromkeys(
        ("script-src", "style-src", "connect-src"), "'self'"
    )
    assert "unsafe" not in str(rules)
    namespaces = "http://www.w3.org/2000/svg"
    for name, body in STATIC.items():
        assert set(re.findall(r"https?://[^\"'\s]+", body)) <= {namespaces}, name


def test_the_page_can_be_left_out(filled: Reco, served: Any) -> None:
    with served(filled, page=False) as client:
        assert client.get("/").status_code == 405  # embeddings in TEI's dialect
        assert compare(client, "red").status_code == 404


# --- comparison --------------------------------------------------------------------------------------------------


def test_rankings_are_those_of_the_two_vectors(filled: Reco, served: Any) -> None:
    query = "a large blue circle"
    with served(filled, page=True) as client:
        answer = compare(client, query, k=4, results=24).json()
    result = filled.refine(filled.embed_texts([query], refine=False), modality="text", k=4, explain=True)
    stored = filled.memory.get([pair["id"] for pair in answer["plain_ranking"]])
    assert len(stored) == 24
    for ranking, vector in (("plain_ranking", result.frozen[0]), ("refined_ranking", result.vectors[0])):
        expected = dict(zip(stored.ids, stored.image @ vector, strict=True))
        given = [(pair["id"], pair["similarity"]) for pair in answer[ranking]]
        assert [id_ for id_, _ in given] == sorted(expected, key=lambda id_: -expected[id_])
        assert [similarity for _, similarity in given] == pytest.approx([expected[id_] for id_, _ in given], abs=1e-5)
    assert result.neighbours is not None and result.weights is not None
    assert [used["id"] for used in answer["used"]] == result.neighbours.ids[0]
    assert [used["weight"] for used in answer["used"]] == pytest.approx(result.weights[0].tolist(), abs=1e-6)
    assert answer["moved"] == pytest.approx(float(result.moved[0]), abs=1e-6)
    assert (answer["refined"], answer["by"]) == (True, "image")
    assert answer["why"].endswith(str(result.why[0])) and not answer["plain"], "behind the words by which it was found"
    assert answer["used"][0]["caption"] == "a " + answer["used"][0]["id"].replace("-", " ")  # the text of its Pair


def test_each_pair_says_its_place_in_both_rankings(filled: Reco, served: Any) -> None:
    with served(filled, page=True) as client:
        answer = compare(client, "a small red square", gate=False, results=24).json()
    for ranking, own in (("plain_ranking", "rank_plain"), ("refined_ranking", "rank_refined")):
        assert [pair[own] for pair in answer[ranking]] == list(range(1, 25))
    places = {pair["id"]: (pair["rank_plain"], pair["rank_refined"]) for pair in answer["plain_ranking"]}
    assert places == {pair["id"]: (pair["rank_plain"], pair["rank_refined"]) for pair in answer["refined_ranking"]}
    assert any(before != after for before, after in places.values())


def test_never_and_an_unrefined_side_are_plain(gainless: Reco, served: Any) -> None:
    with served(gainless, page=True) as client:
        for how in ({"refine": False}, {"input_type": "document"}):
            answer = compare(client, "red", **how).json()
            assert (answer["refined"], answer["moved"], answer["used"]) == (False, 0.0, [])
            assert answer["plain_ranking"] == answer["refined_ranking"]
        answer = compare(client, "red", input_type="document", refine=True).json()
        assert (answer["refined"], answer["moved"], bool(answer["plain"])) == (False, 0.0, True), (
            "should be refined, and stays plain"
        )
        assert answer["used"], "it was refined by these"


def test_the_page_says_what_was_decided_and_by_what_coverage(filled: Reco, served: Any) -> None:
    with served(filled, page=True) as client:
        whole, odd = (compare(client, "red", coverage=coverage) for coverage in (1, 1.5))
        free = compare(client, "red", gate=False).json()
        filled.memory.store.set_calibration({})
        unlearned = compare(client, "red").json()
    assert (whole.status_code, odd.status_code, odd.json()["error"]["param"]) == (200, 400, "coverage")
    assert (free["why"], free["plain"], unlearned["why"]) == ("", "", "")
    assert unlearned["plain"].startswith("the memory is not calibrated")
    assert unlearned["moved"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.filterwarnings("ignore:answering with frozen CLIP vectors")
def test_a_memory_that_fails_costs_rankings_and_refinement_but_not_the_answer(troubled: Any, served: Any) -> None:
    made = troubled()

    def fail() -> None:
        raise MemoryUnavailable("nobody answers at 10.0.0.8:6333")

    with served(made.reco, page=True) as client:
        made.seam.trouble = fail
        answer = compare(client, "red").json()
    assert (answer["degraded"], answer["refined"], answer["refined_ranking"]) == ("memory_error", False, [])
    assert answer["ranking_error"] == "the memory is down: try again later"


def test_an_empty_memory_is_legal(reco: Reco, served: Any) -> None:
    with served(reco, page=True) as client:
        answer = compare(client, "red").json()
        assert answer["refined"] is False
        assert (answer["used"], answer["plain_ranking"], answer["ranking_error"]) == ([], [], None)
        assert client.get("/page/examples").json() == {"data": []}


# --- pictures ----------------------------------------------------------------------------------------------------


def test_a_thumbnail_in_the_payload_is_shown(reco: Reco, served: Any, drawings: list[Pair]) -> None:
    small = thumbnail(drawings[0].image)  # type: ignore[arg-type]
    reco.memory.add([Pair("one", drawings[0].image, "red", {"caption": "red", "thumbnail": small})])
    with served(reco, page=True) as client:
        assert compare(client, "red").json()["used"][0]["picture"] == small
        assert client.get("/page/examples").json()["data"] == [{"id": "one", "caption": "red", "picture": small}]


@pytest.mark.parametrize(
    "given",
    [
        "https://elsewhere.example/x.png",
        "data:image/svg+xml;base64,PHN2Zy8+",
        "data:text/html;base64,aGk=",
        "javascript:1",
        7,
    ],
)
def test_a_thumbnail_that_is_no_small_picture_is_not(given: Any) -> None:
    assert PairPictures((), CONFIG, 10**6).of("one", {"thumbnail": given}) is None


def test_a_file_is_matched_by_payload_or_id_and_never_outside_of_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    for place in (folder / "sub" / "a.png", folder / "b.png", tmp_path / "secret.png"):
        Image.new("RGB", (20, 10), "red").save(place)
    (folder / "broken.png").write_bytes(b"no image")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    find: Callable[..., Any] = PairPictures([folder], CONFIG, 10**6).of
    assert find("x", {"image": "sub/a.png"}) == find("sub/a.png", {}) == thumbnail(folder / "b.png")
    assert find("b.png", {"path": 3}) is not None
    for outside in (
        "../secret.png",
        str(tmp_path / "secret.png"),
        "link.png",
        "nothing.png",
        "broken.png",
        "\0",
        "x" * 5000,
    ):
        assert find("none", {"image": outside}) is None, outside
    assert PairPictures((), CONFIG, 10**6).of("b.png", {}) is None


def test_a_path_that_two_folders_have_is_nobodys_picture(tmp_path: Path) -> None:
    for name, colour in (("one", "red"), ("two", "blue")):
        (tmp_path / name).mkdir()
        Image.new("RGB", (20, 10), colour).save(tmp_path / name / "same.png")
    Image.new("RGB", (20, 10), "green").save(tmp_path / "two" / "only.png")
    find = PairPictures([tmp_path / "one", tmp_path / "two"], CONFIG, 10**6).of
    assert find("x", {"image": "same.png"}) is None
    assert find("x", {"image": "only.png"}) == thumbnail(tmp_path / "two" / "only.png")
    assert find("x", {"image": str(tmp_path / "one" / "same.png")}) == thumbnail(tmp_path / "one" / "same.png")


@pytest.fixture
def built(tmp_path: Path, drawings: list[Pair], model: Path) -> Path:
    """A memory that the command line filled from a table with ids, captions and files in a folder beside it."""
    photos = tmp_path / "shop" / "photos"
    photos.mkdir(parents=True)
    rows = ["id,image,text"]
    for number, pair in enumerate(drawings[:6]):
        pair.image.save(photos / f"{pair.id}.png")  # type: ignore[union-attr]
        rows.append(f"{number},photos/{pair.id}.png,{pair.text}")
    (tmp_path / "shop" / "catalogue.csv").write_text("\n".join(rows))
    memory = tmp_path / "memory"
    command = ["memory", "build", str(tmp_path / "shop" / "catalogue.csv"), "--model", str(model)]
    done = CliRunner().invoke(app, [*command, "--memory", str(memory)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return memory


def shown_pictures(memory: Path, model: Path, served: Any, **settings: Any) -> list[str | None]:
    """Pictures of all pairs of a memory, as the page gets them."""
    with Reco.open(model, memory=memory) as reco, served(reco, page=True, **settings) as client:
        ranking = compare(client, "red", results=20).json()["plain_ranking"]
    return [pair["picture"] for pair in ranking]


def test_a_memory_built_from_a_table_has_pictures_without_a_setting(built: Path, model: Path, served: Any) -> None:
    pictures = shown_pictures(built, model, served)
    assert len(pictures) == len(set(pictures)) == 6
    assert None not in pictures


def test_a_memory_that_was_copied_here_opens_no_folder_until_one_is_set(built: Path, model: Path, served: Any) -> None:
    copied = built.with_name("copied")
    copy_folder(built, copied)
    assert shown_pictures(copied, model, served) == [None] * 6
    assert None not in shown_pictures(copied, model, served, page_pictures=built.parent / "shop")
    assert shown_pictures(built, model, served, page_pictures=built.parent / "memory") == [None] * 6
