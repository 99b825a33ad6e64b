"""A cut-off for an index that exists: a memory's pairs ask it, by its own search."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from trust_worlds import D, unit
from typer.testing import CliRunner

from reco_plugin.calibration.learn import learn
from reco_plugin.cli.app import app
from reco_plugin.engines import open_index
from reco_plugin.errors import ConfigError, InputError, VectorError
from reco_plugin.match_index import IndexCutoffs, ask_index
from reco_plugin.memory import Fingerprint, open_memory
from reco_plugin.types import Records

from .conftest import Row, Served

THINGS, HELD = 220, 160
"""Of the memory, two pairs of one caption each; of the index, the first so many, another picture each."""


def made() -> tuple[Records, np.ndarray]:
    """Pairs, and other pictures (400, D) of the things."""
    rng = np.random.default_rng(0)
    thing = np.repeat(np.arange(THINGS), 2)
    meaning = rng.normal(size=(THINGS, D))
    shown = meaning + 0.8 * rng.normal(size=(THINGS, D))
    noise = [0.6 * rng.normal(size=(size, D)) + 5 * np.eye(2, D)[0] for size in (2 * THINGS, THINGS)]
    pictures, others = unit(shown[thing] + noise[0]), unit(shown + noise[1])
    text = unit(meaning + 0.3 * rng.normal(size=(THINGS, D)) + 5 * np.eye(2, D)[1])[thing]
    ids = [f"sku-{row // 2:04}" if row % 2 == 0 else f"again-{row // 2:04}" for row in range(len(thing))]
    return Records(ids, pictures, text, [{"changed": int(one)} for one in thing]), others


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the pairs, learned from."""
    where = tmp_path_factory.mktemp("cutoff") / "memory"
    with closing(open_memory(str(where), Fingerprint("mini", "ab" * 32, D))) as store:
        store.upsert(made()[0])
        learn(store, 10)
    return where


def documents(pictures: Sequence[np.ndarray] | np.ndarray) -> list[Row]:
    """One for each thing that the index holds."""
    return [
        Row(f"sku-{n:04}", "a thing", "photo.png", 1.0, n, np.asarray(one).tolist()) for n, one in enumerate(pictures)
    ]


@pytest.fixture(scope="module")
def index(qdrant_folder: Served) -> str:
    """The address of the things' other pictures."""
    assert qdrant_folder.fill is not None
    return qdrant_folder.fill("cutoffs", documents(made()[1][:HELD]))


def asked(memory: Path, address: str, **how: object) -> IndexCutoffs:
    with closing(open_memory(str(memory), None)) as store, closing(open_index(address)) as engine:
        before = store.header.calibration
        found = ask_index(store, engine, **how)  # type: ignore[arg-type]
        assert store.header.calibration == before, "nothing is stored"
    return found


def test_a_cut_off_holds_in_the_index_that_was_asked(memory: Path, index: str) -> None:
    found = asked(memory, index, precision=0.8, absent=0.2)
    assert (found.pairs, found.common, found.index.documents) == (2 * THINGS, HELD, HELD)
    assert found.outside > 0
    assert found.left_out == 0, "enough pairs are not in the index"
    assert found.asked > HELD
    pairs, pictures = made()
    scores = pairs.text[::2] @ pictures[:HELD].T
    right = scores.argmax(axis=1) == np.arange(THINGS)
    cut = found.cutoff("plain")
    assert cut is not None
    passing = scores.max(axis=1) >= cut
    assert right[passing].mean() >= 0.8
    promise = found.of["plain"]["score"]
    assert promise is not None
    assert promise.passing[1] <= passing.mean() <= promise.passing[2]
    assert found.found["plain"] == pytest.approx(right[:HELD].mean(), abs=0.05)
    assert set(found.found) == {"plain", "known", "unknown"}
    assert found.found["known"] > found.found["plain"], "pairs of the same thing help"
    lead = found.cutoff("refined", "lead")
    assert lead is not None
    assert 0 < lead < 1


def test_it_tells_how_far_it_is(memory: Path, index: str) -> None:
    told = dict[str, tuple[int, int]]()

    def tell(what: str, more: int, total: int) -> None:
        told[what] = (told.get(what, (0, 0))[0] + more, total)

    found = asked(memory, index, precision=0.8, progress=tell)
    assert list(told) == ["read the memory", "read the index", "ask the index"]
    assert all(done == total for done, total in told.values())
    assert told["ask the index"][0] >= 2 * found.asked


def test_a_field_that_both_have_names_what_is_right(memory: Path, index: str) -> None:
    found = asked(memory, index, precision=0.8, group="changed")
    assert found.common == 2 * HELD, "both pairs of each thing"
    assert found.cutoff("plain") is not None
    without = asked(memory, index.replace("&id=sku", ""), precision=0.8, group="changed")
    assert without.of == found.of, "whatever its ids are"


def test_where_all_pairs_have_an_answer_some_answers_are_left_out(memory: Path, qdrant_folder: Served) -> None:
    assert qdrant_folder.fill is not None
    everything = qdrant_folder.fill("cutoffs-all", documents(made()[1]))
    found = asked(memory, everything, precision=0.8, absent=0.5)
    assert (found.outside, found.common) == (0, THINGS)
    assert 0.4 < found.left_out / found.asked < 0.6
    hardly = asked(memory, everything, precision=0.8, absent=0.999)
    assert hardly.cutoff("plain") is None
    none_absent = asked(memory, everything, precision=0.8, absent=0.0)
    assert none_absent.left_out == 0
    few, many = (one.of["plain"]["lead"] for one in (found, none_absent))
    assert many is not None
    assert few is None or few.passing[0] < many.passing[0]


def test_a_distance_is_compared_as_the_engine_tells_it(memory: Path, index: str, tmp_path: Path) -> None:
    from qdrant_client import QdrantClient

    from .conftest import to_qdrant

    with closing(QdrantClient(path=str(tmp_path))) as client:
        to_qdrant(client, "far", documents(made()[1][:HELD]), "Euclid")
    far = asked(memory, f"qdrant:{tmp_path}?collection=far&vector=clip&id=sku", precision=0.8)
    near = asked(memory, index, precision=0.8)
    assert far.found["plain"] == near.found["plain"]
    cosine, distance = near.cutoff("plain"), far.cutoff("plain")
    assert cosine is not None
    assert distance == pytest.approx(-np.sqrt(2 - 2 * cosine), abs=0.02)


def test_what_cannot_be_promised_says_why(memory: Path, index: str, qdrant_folder: Served) -> None:
    assert qdrant_folder.fill is not None
    others = [replace(row, sku=f"other-{n}") for n, row in enumerate(documents(made()[1][:HELD]))]
    found = asked(memory, qdrant_folder.fill("cutoffs-others", others))
    assert (found.common, found.asked, found.cutoff()) == (0, 0, None)
    assert "holds 0 of the memory's 440 pairs" in found.why["plain"]
    assert "like 'again-0000', the index's ids like 'other-0'" in found.why["plain"]
    assert "id=FIELD" in found.why["plain"]
    hard = asked(memory, index, precision=0.99)
    assert "none holds 99% for sure" in hard.why["plain"]
    texts = qdrant_folder.fill("cutoffs-texts", documents(made()[0].text[::2][:HELD]))
    own = asked(memory, texts, precision=0.8)
    assert own.cutoff("plain") is None
    assert "the index holds texts" in own.why["refined"]
    assert asked(memory, texts, precision=0.8, modality="image").found["plain"] < 1
    with pytest.raises(VectorError, match=f"16 dimensions, the memory's {D}"):
        asked(memory, qdrant_folder.address)
    with pytest.raises(InputError, match="no pair has a field 'product'"):
        asked(memory, index, group="product")
    with pytest.raises(InputError, match="precision must be"):
        asked(memory, index, precision=2.0)
    with pytest.raises(InputError, match="by must be"):
        found.cutoff("plain", "match")  # type: ignore[arg-type]


def test_the_command_tells_it(memory: Path, index: str) -> None:
    line = ["memory", "cutoff", "--memory", str(memory), "--index", index, "--precision", "0.8"]
    said = CliRunner().invoke(app, line, catch_exceptions=False)
    assert said.exit_code == 0, said.output
    assert "160 documents) holds 160 of the memory's 440 pairs" in said.stdout
    assert "scores are cosines" in said.stdout
    assert "text queries, plain, first answer right" in said.stdout
    assert "first score at least" in said.stdout
    told = json.loads(CliRunner().invoke(app, [*line, "--json"], catch_exceptions=False).stdout)
    assert told["cutoffs"]["plain"]["score"]["right"][0] >= 0.8
    assert (told["index"]["metric"], told["risk"], told["common"]) == ("cosine", 0.1, HELD)
    wrong = CliRunner().invoke(app, [*line[:-3], "nowhere", "--queries", "sound"])
    assert wrong.exit_code == 1
    assert "queries must be 'image' or 'text'" in wrong.stderr
    alone = CliRunner().invoke(app, ["memory", "cutoff", "--memory", str(memory), "--queries", "text"])
    assert "give its address, --index ADDRESS" in alone.stderr
    lost = CliRunner().invoke(app, [*line[:-3], "nowhere"])
    assert (lost.exit_code, lost.stdout) == (1, "")
    other = CliRunner().invoke(app, [*line[:-3], index.replace("id=sku", "id=changed")], catch_exceptions=False)
    assert "nothing can be promised: too few in common: the index holds 0 of the memory's 440 pairs" in other.stdout


def test_a_memory_that_never_learned_says_so(tmp_path: Path, index: str) -> None:
    pairs = made()[0].take(np.arange(20))
    with closing(open_memory(str(tmp_path / "memory"), Fingerprint("mini", "ab" * 32, D))) as store:
        store.upsert(pairs)
    with pytest.raises(ConfigError, match="not calibrated"):
        asked(tmp_path / "memory", index)
