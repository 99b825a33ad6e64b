"""Parts of a memory and wrong captions, by hand."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from reco_plugin.evaluate.study.memories import at_most_each, captions_of, join_records, part, with_wrong_captions
from reco_plugin.types import Records


def records(captions: list[str]) -> Records:
    """Image and text of pair i point along axis i of the caption."""
    kinds = sorted(set(captions))
    text = np.eye(len(kinds), dtype=np.float32)[[kinds.index(caption) for caption in captions]]
    return Records([f"p{i}" for i in range(len(captions))], text.copy(), text, [{"caption": c} for c in captions])


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 1.0])
def test_wrong_captions_are_wrong_and_as_many_as_asked(share: float) -> None:
    before = records([f"c{i % 10}" for i in range(200)])
    after, really = with_wrong_captions(before, share, seed=3)
    changed = [a["caption"] != b["caption"] for a, b in zip(after.payloads, before.payloads, strict=True)]
    assert sum(changed) == round(200 * share) == round(200 * really)
    assert [bool((a != b).any()) for a, b in zip(after.text, before.text, strict=True)] == changed
    np.testing.assert_array_equal(after.image, before.image)
    assert Counter(captions_of(after)) == Counter(captions_of(before))  # permuted, nothing new, nothing lost
    for payload, vector in zip(after.payloads, after.text, strict=True):
        assert vector[int(payload["caption"][1:])] == 1  # caption and vector moved together


def test_the_share_that_is_told_is_the_real_one_where_one_caption_dominates() -> None:
    before = records(["same"] * 90 + [f"c{i}" for i in range(10)])
    after, really = with_wrong_captions(before, 1.0, seed=0)
    changed = sum(a["caption"] != b["caption"] for a, b in zip(after.payloads, before.payloads, strict=True))
    assert changed == round(100 * really) <= 20


def test_wrong_captions_without_captions_go_by_the_vectors() -> None:
    before = records([f"c{i % 5}" for i in range(50)])
    bare = Records(before.ids, before.image, before.text, [{}] * 50)
    after, really = with_wrong_captions(bare, 1.0, seed=1)
    assert really == 1.0
    assert not (after.text * before.text).any()
    assert with_wrong_captions(bare, 0.0, seed=1).share == 0


def test_smaller_shares_are_parts_of_larger_ones() -> None:
    before = records([f"c{i % 10}" for i in range(100)])

    def wrong(share: float) -> set[int]:
        after = with_wrong_captions(before, share, seed=5).records
        return {i for i in range(100) if after.payloads[i] != before.payloads[i]}

    assert wrong(0.1) < wrong(0.3) < wrong(0.7)
    assert set(part(100, 0.1, 2)) < set(part(100, 0.5, 2))


def test_at_most_so_many_of_each() -> None:
    entities = ["a"] * 5 + ["b"] * 2 + ["c"]
    one, two = at_most_each(entities, 1, seed=0), at_most_each(entities, 2, seed=0)
    assert Counter(np.array(entities)[two].tolist()) == {"a": 2, "b": 2, "c": 1}
    assert Counter(np.array(entities)[one].tolist()) == {"a": 1, "b": 1, "c": 1}
    assert (one <= two).all()
    assert at_most_each(entities, 9, seed=0).all()
    assert len(at_most_each([], 1, seed=0)) == 0


def test_two_memories_with_the_same_ids_lose_nothing() -> None:
    both = join_records(records(["a", "b"]), records(["a", "b"]))
    assert both.ids == ["p0", "p1", "other:p0", "other:p1"]
    assert both.take(np.array([3, 0])).ids == ["other:p1", "p0"]
