"""A trial of another constant: it is put in where it is used, and its gains are kept apart from the page's."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.orders import Memory, over_orders, try_constant
from benchmarks.research import Kept
from reco_plugin.calibration import calibrate, fit


def test_a_trial_has_another_constant(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((calibrate, "ASKED"), (fit, "SHARPNESSES")):
        monkeypatch.setattr(module, name, getattr(module, name))  # put back afterwards
    assert try_constant("calibrate.ASKED=9600") == "calibrate.ASKED=9600"
    try_constant("fit.SHARPNESSES=[0.7, 3.4]")
    assert (calibrate.ASKED, fit.SHARPNESSES) == (9600, [0.7, 3.4])


@pytest.mark.parametrize(
    "said", ["calibrate.ASKED", "calibrate.ASKED=many", "calibrate.ASKD=1", "nothing.ASKED=1", "calibrate.look=1"]
)
def test_what_is_no_constant_is_refused(said: str) -> None:
    before = calibrate.ASKED, calibrate.look
    with pytest.raises(argparse.ArgumentTypeError, match=said.split("=")[0]):
        try_constant(said)
    assert (calibrate.ASKED, calibrate.look) == before


def test_gains_of_a_trial_are_kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Counter[int]()

    def measure(_: Memory, seed: int) -> dict[str, list[float]]:
        asked[seed] += 1
        return {"row": [float(asked.total())]}

    monkeypatch.setattr(Memory, "measure", measure)
    memories, file = [Memory("one", ())], tmp_path / "kept.jsonl"
    assert over_orders(memories, 2, Kept(file)) == {"row": [[1.0], [2.0]]}
    assert over_orders(memories, 2, Kept(file), ["fit.PULL=1"]) == {"row": [[3.0], [4.0]]}
    assert over_orders(memories, 2, Kept(file)) == {"row": [[1.0], [2.0]]}
    assert over_orders(memories, 2, Kept(file), ["fit.PULL=1"]) == {"row": [[3.0], [4.0]]}
