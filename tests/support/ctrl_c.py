"""Ctrl-C in the middle of a command: sent to this process when its progress is told the n-th time."""

from __future__ import annotations

import signal

import pytest
from tqdm import tqdm

from reco_plugin import progress


def press_ctrl_c(monkeypatch: pytest.MonkeyPatch, *, at: int, of: str = "") -> None:
    """Send SIGINT to this process once: at the n-th advance of any progress bar, or of the one called ``of``."""
    told = 0

    class Pressing(progress._Lines):
        def update(self, n: float | None = 1) -> bool | None:
            nonlocal told
            if of in ("", self.desc):
                told += 1
                if told == at:
                    signal.raise_signal(signal.SIGINT)
            return tqdm.update(self, n)

    monkeypatch.setattr(progress, "FIRST_S", 0.0)  # bars over items advance at once
    monkeypatch.setattr(progress, "_Lines", Pressing)
