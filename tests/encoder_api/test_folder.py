"""A model folder of an API: made by a command, opened while the API is down, held to what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from api_server import Api, Reply
from PIL import Image
from typer.testing import CliRunner

from reco_plugin import Pair, Reco
from reco_plugin.artifact import Artifact
from reco_plugin.cli.app import app
from reco_plugin.errors import SessionUnavailable
from reco_plugin.guard import DegradedWarning

PAIR = Pair("a", Image.new("RGB", (9, 9), "red"), "a red square")


@pytest.fixture
def folder(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Made by the command, with a key, which must not be in it."""
    monkeypatch.setenv("RECO_ENCODER_KEY", "hush-4711")
    monkeypatch.setenv("RECO_ENCODER_PATIENCE_S", "0")
    out = tmp_path / "model"
    address = f"jina+{api.url}/v1?model=m"
    done = CliRunner().invoke(
        app, ["model", "add", address, "--out", str(out), "--template", "{}", "--matryoshka", "8"]
    )
    assert done.exit_code == 0, done.output
    assert f"m at {api.url.removeprefix('http://')} (32-d, measured" in done.output
    return out


def test_it_holds_what_was_measured_and_no_key(api: Api, folder: Path) -> None:
    text = (folder / "manifest.json").read_text()
    assert "hush" not in text
    manifest = json.loads(text)
    assert manifest["api"] == f"jina+{api.url}/v1?model=m"
    assert (manifest["templates"], manifest["matryoshka"], manifest["graphs"]) == (["{}"], [8], {})
    assert Artifact.load(folder).manifest.fusers == ("reco",)


def test_it_opens_while_the_api_is_down_and_is_held_to_the_model(api: Api, folder: Path, tmp_path: Path) -> None:
    with Reco.open(folder, tmp_path / "memory") as reco:
        reco.memory.add([PAIR])
    asked = len(api.asked)
    api.next = [Reply(503, {})]
    with Reco.open(folder, tmp_path / "memory") as reco:
        assert len(api.asked) == asked, "it is not asked before it is needed"
        with pytest.raises(SessionUnavailable, match="answered 503"):
            reco.embed_texts(["fox"])
        api.model = 1
        with pytest.warns(DegradedWarning, match="has another model than the memory"):
            assert reco.embed(["fox"], modality="text", refine=True).degraded == "encoder_changed"
        api.model = 0
