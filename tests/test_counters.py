"""What a Reco counts begins at 0, and is JSON."""

from __future__ import annotations

import json
from typing import get_args

from reco_plugin.counters import DISTANCES, SECONDS, Counters
from reco_plugin.types import Degraded


def test_everything_is_json_and_bounds_rise():
    counted = Counters().to_dict()
    assert json.loads(json.dumps(counted)) == counted
    assert counted['reco_refined_total{modality="image"}'] == counted['reco_left_plain_total{modality="text"}'] == 0
    for name in ("degraded", "failed"):
        reasons = {f'reco_{name}_total{{reason="{reason}"}}' for reason in get_args(Degraded)}
        assert reasons <= counted.keys(), "a series that begins with its first count has no rate"
    assert list(SECONDS) == sorted(set(SECONDS))
    assert list(DISTANCES) == sorted(set(DISTANCES))
