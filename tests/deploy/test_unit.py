"""deploy/reco.service: the settings of the unit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from reco_plugin import Reco
from reco_plugin.errors import ArtifactError
from reco_plugin.settings import load_settings


def test_a_unit_without_its_model_does_not_serve_the_quickstart_model(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings().falls_back
    unit = (root / "deploy" / "reco.service").read_text("utf-8")
    for name, value in re.findall(r"^Environment=(\w+)=(.*)$", unit, flags=re.MULTILINE):
        monkeypatch.setenv(name, value)
    assert not load_settings().falls_back
    with pytest.raises(ArtifactError, match="RECO_MODEL"):
        Reco.open()
