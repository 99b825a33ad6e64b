"""What is learned of a tenant's own pairs: behind its queries, of enough pairs, of the tenants that came last."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from live_service import wait_until

from reco_plugin import Reco
from reco_plugin.learning import tenants
from reco_plugin.memory import in_scope
from reco_plugin.memory.scope import Scope
from reco_plugin.types import Records

DE, FR = ((("shop", shop),) for shop in ("de", "fr"))


def pairs(shop: str, number: int) -> Records:
    """Three pairs of each of some things, whose captions know their pictures."""
    rng = np.random.default_rng(number)
    things = np.repeat(rng.normal(size=(number // 3, 128)), 3, axis=0)
    image, text = (things + 0.5 * rng.normal(size=things.shape) for _ in range(2))
    image, text = (np.asarray(one / np.linalg.norm(one, axis=1, keepdims=True), np.float32) for one in (image, text))
    return Records([f"{shop}-{row}" for row in range(number)], image, text, [{"shop": shop}] * number)


def learned_from(reco: Reco, scope: Scope) -> int:
    with in_scope(scope):
        calibration = reco.memory.calibration
    assert calibration is not None
    return calibration.pairs


def test_a_tenant_with_enough_pairs_has_what_was_learned_of_them(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenants, "MOST", 1)
    monkeypatch.setattr(tenants, "ENOUGH", 60)
    with Reco.open(model, memory=":memory:", memory_options={"tenant_field": "shop"}) as reco:
        reco.memory.add_records([pairs("de", 66), pairs("fr", 30)])
        assert learned_from(reco, DE) == 96, "no query waits"
        wait_until(lambda: learned_from(reco, DE) == 66)
        with in_scope(DE):
            assert reco.memory.store.header.calibration["pairs"] == 66
        assert (learned_from(reco, FR), learned_from(reco, (("shop", "de"), ("year", "1")))) == (96, 96)
        assert learned_from(reco, DE) == 96, "only the last is kept"
