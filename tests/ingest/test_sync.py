"""Daily changes: update, sync, and what they would do."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from reco_plugin import Pair, Reco
from reco_plugin.data.opening import open_rows
from reco_plugin.errors import DataError
from reco_plugin.ingest import IngestOptions, Outcome, ingest
from reco_plugin.ingest.plan import plan
from reco_plugin.ingest.write import Writer
from reco_plugin.values import SOURCE

from .conftest import Catalogue, Fill, Watched, all_rows, content


@pytest.fixture
def sync(write_catalogue: Catalogue, shop: Reco, fill: Fill):  # type: ignore[no-untyped-def]
    def run(rows: list[tuple[str, str, str]], name: str = "shop", max_share: float = 1.0) -> Outcome:
        finish = partial(Writer.delete_gone, max_share=max_share)
        return fill(write_catalogue(rows), shop, source=name, finish=finish)

    return run


def test_sync_adds_replaces_and_deletes(sync, shop: Reco, drawings: list[Pair]) -> None:  # type: ignore[no-untyped-def]
    rows = all_rows(drawings)
    shop.memory.add(drawings[20:])  # by hand, and never touched
    assert sync(rows[:10]).added == 10
    changed = [*rows[2:9], (rows[9][0], rows[9][1], "changed"), *rows[10:12]]
    outcome = sync(changed)
    assert (outcome.added, outcome.replaced, outcome.unchanged, outcome.deleted) == (2, 1, 7, 2)
    assert set(content(shop)) == {name for name, _, _ in [*changed, *rows[20:]]}
    watched = Watched(shop)
    assert sync(changed).unchanged == 10
    assert (watched.written, watched.deleted) == ([], [])


def test_two_sources_keep_apart(sync, shop: Reco, drawings: list[Pair]) -> None:  # type: ignore[no-untyped-def]
    rows = all_rows(drawings)
    sync(rows[:5], "one")
    sync(rows[5:9], "two")
    assert sync(rows[:4], "one").deleted == 1
    assert len(shop.memory) == 8
    taken = sync(rows[3:9], "two")  # what both hold belongs to who brought it last
    assert (taken.unchanged, content(shop)[rows[3][0]][2][SOURCE]) == (5, "two")
    assert sync(rows[:3], "one").deleted == 0


def test_a_pair_keeps_its_witnesses_and_gets_those_that_it_lacks(sync, shop: Reco, drawings: list[Pair]) -> None:  # type: ignore[no-untyped-def]
    rows = all_rows(drawings)
    names = [name for name, _, _ in rows]
    sync(rows, "one")
    known = shop.memory.store.witnesses(names)
    assert np.isfinite(known).all()
    assert sync(rows, "two").unchanged == len(rows)
    np.testing.assert_array_equal(shop.memory.store.witnesses(names), known)
    some = shop.memory.get(names[:3])  # as after a run that was killed before it learned
    shop.memory.store.delete(names[:3])
    shop.memory.store.upsert(some)
    assert np.isnan(shop.memory.store.witnesses(names)).any(axis=1).sum() == 3
    assert sync(rows, "two").unchanged == len(rows)
    np.testing.assert_allclose(shop.memory.store.witnesses(names), known, atol=0.1)


def test_too_much_is_not_deleted(sync, shop: Reco, drawings: list[Pair]) -> None:  # type: ignore[no-untyped-def]
    rows = all_rows(drawings)
    sync(rows[:10])
    with pytest.raises(DataError, match=r"nothing was deleted.* 3 of the 10 pairs .*--max-delete 0\.30"):
        sync(rows[3:10], max_share=0.2)
    assert len(shop.memory) == 10
    assert sync(rows[3:10], max_share=0.3).deleted == 3


def test_a_source_that_shrinks_while_it_is_read_deletes_nothing(
    write_catalogue: Catalogue, sync, shop: Reco, drawings: list[Pair], tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    drawn = all_rows(drawings)
    sync(drawn[:10])
    rows = open_rows(write_catalogue(drawn[:12]))
    write_catalogue(drawn[10:11])  # another process writes it anew
    options = IngestOptions(source="shop", rejected=tmp_path / "rejected", listed=tmp_path / "listed", max_error_rate=1)
    with pytest.raises(DataError, match=r"catalogue\.csv changed while it was read, so rows may be missing"):
        ingest(rows, shop, options, finish=partial(Writer.delete_gone, max_share=1.0))
    with pytest.raises(DataError, match="changed while it was read"):
        plan(rows, shop.memory.store, options, max_delete=1.0, progress=lambda *_: None)
    assert set(content(shop)) >= {name for name, _, _ in drawn[:10]}
    assert sync(drawn[10:11]).deleted == 10


def test_rejected_rows_keep_their_pairs(sync, shop: Reco, drawings: list[Pair]) -> None:  # type: ignore[no-untyped-def]
    rows = all_rows(drawings)
    sync(rows[:10])
    broken = [(rows[0][0], "gone.png", "x"), *rows[1:9]]
    outcome = sync(broken)
    assert (outcome.rejected, outcome.deleted) == (1, 1)
    assert set(content(shop)) == {name for name, _, _ in rows[:9]}


def test_exactly_the_source(write_catalogue: Catalogue, shop: Reco, fill: Fill, drawings: list[Pair]) -> None:
    rows = all_rows(drawings)
    fill(write_catalogue(rows[:10]), shop)
    broken = [(rows[3][0], "gone.png", "x"), *rows[4:12]]
    outcome = fill(write_catalogue(broken), shop, finish=Writer.delete_others)
    assert (outcome.held, outcome.deleted) == (8, 4)
    assert set(content(shop)) == {name for name, _, _ in rows[4:12]}


def test_update_leaves_unknown_ids_out(
    write_catalogue: Catalogue, shop: Reco, fill: Fill, drawings: list[Pair]
) -> None:
    rows = all_rows(drawings)
    fill(write_catalogue(rows[:10]), shop)
    changed = [(rows[0][0], rows[0][1], "changed"), *rows[1:15]]
    outcome = fill(write_catalogue(changed), shop, only_known=True)
    assert (outcome.replaced, outcome.unchanged, outcome.missing, outcome.added) == (1, 9, 5, 0)
    assert len(shop.memory) == 10


def test_an_updated_pair_stays_its_sources(
    sync,
    write_catalogue: Catalogue,
    shop: Reco,
    fill: Fill,
    drawings: list[Pair],  # type: ignore[no-untyped-def]
) -> None:
    rows = all_rows(drawings)
    shop.memory.add(drawings[20:])
    sync(rows[:10])
    changed = [(name, image, "changed") for name, image, _ in (rows[0], rows[20])]
    assert fill(write_catalogue(changed), shop, only_known=True).replaced == 2
    assert (content(shop)[rows[0][0]][2][SOURCE], SOURCE in content(shop)[rows[20][0]][2]) == ("shop", False)
    assert sync(rows[1:10]).deleted == 1


def test_a_plan_says_what_the_run_then_does(
    sync,
    write_catalogue: Catalogue,
    shop: Reco,
    drawings: list[Pair],  # type: ignore[no-untyped-def]
) -> None:
    rows = all_rows(drawings)
    sync(rows[:10])
    changed = [*rows[2:9], (rows[9][0], rows[9][1], "changed"), *rows[10:12], ("gone", "gone.png", "x")]
    changed += [rows[10], (rows[11][0], rows[11][1], "other content"), ("gone", "gone.png", "x")]
    watched = Watched(shop)
    rows_now = open_rows(write_catalogue(changed))
    told = plan(rows_now, shop.memory.store, IngestOptions(source="shop"), max_delete=1, progress=lambda *_: None)
    assert (watched.written, watched.deleted) == ([], [])
    done = sync(changed)
    assert (done.repeated, done.rejected) == (1, 3)
    for name in ("read", "added", "replaced", "unchanged", "repeated", "rejected", "deleted"):
        assert getattr(told, name) == getattr(done, name), name


@pytest.mark.parametrize("share", [0.19, 0.2])
def test_a_plan_says_whether_too_much_would_go(
    sync,
    write_catalogue: Catalogue,
    shop: Reco,
    drawings: list[Pair],  # type: ignore[no-untyped-def]
    share: float,
) -> None:
    """Of 15 pairs then, 3 are gone: 10 before, and 5 that come, two of them from another source and by hand."""
    rows = all_rows(drawings)
    sync(rows[:10])
    sync(rows[10:11], "other")
    shop.memory.add(drawings[11:12])
    now = write_catalogue(rows[3:15])
    told = plan(
        open_rows(now), shop.memory.store, IngestOptions(source="shop"), max_delete=share, progress=lambda *_: None
    )
    assert told.deleted == 3
    if share < 0.2:
        assert told.refused is not None
        with pytest.raises(DataError) as refused:
            sync(rows[3:15], max_share=share)
        assert str(refused.value).endswith(told.refused)
    else:
        assert told.refused is None
        assert sync(rows[3:15], max_share=share).deleted == 3
