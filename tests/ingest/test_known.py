"""What a memory holds, told to workers as numbers."""

from __future__ import annotations

import pickle

import pytest

from reco_plugin import Pair
from reco_plugin.ingest.prepare import Known, Loaded, Skipped
from reco_plugin.values import ROW

HELD = [(f"pair-{number}", {ROW: f"{number:016x}", "caption": "a fox"}) for number in range(1000)]


def loaded(id_: str, digest: str) -> Loaded:
    return Loaded("somewhere", Pair(id_, b"", "a fox"), digest)


@pytest.mark.parametrize("only_known", [False, True])
def test_a_row_is_skipped_where_the_memory_holds_it_as_it_is(only_known):
    known = Known.of(reversed(HELD), only_known=only_known)
    for id_, payload in HELD:
        assert known.sift(loaded(id_, payload[ROW])) == Skipped(id_, payload[ROW], "unchanged")
    assert known.ids.nbytes + known.rows.nbytes == 16 * len(HELD)


def test_a_changed_row_and_a_row_of_another_id_are_encoded():
    known = Known.of(HELD)
    changed, swapped, new = loaded("pair-1", "f" * 16), loaded("pair-1", f"{2:016x}"), loaded("new", f"{1:016x}")
    assert [known.sift(row) for row in (changed, swapped, new)] == [changed, swapped, new]


def test_an_unknown_id_is_missing_where_only_known_ones_are_wanted():
    known = Known.of(HELD, only_known=True)
    changed = loaded("pair-1", "f" * 16)
    assert known.sift(changed) is changed
    assert known.sift(loaded("new", f"{1:016x}")) == Skipped("new", f"{1:016x}", "missing")


def test_nothing_is_known_of_an_empty_memory_nor_of_pairs_without_a_digest():
    row = loaded("pair-1", "None")
    assert Known.of([]).sift(row) is row
    assert Known.of([("pair-1", {})]).sift(row) is row


def test_the_last_number_and_beyond_it_are_found_rightly():
    known = Known.of(HELD[:1])
    results = {type(known.sift(loaded(f"other-{number}", "0" * 16))) for number in range(100)}
    assert results == {Loaded}


def test_it_can_be_sent():
    known = pickle.loads(pickle.dumps(Known.of(HELD)))
    assert isinstance(known.sift(loaded("pair-7", f"{7:016x}")), Skipped)
