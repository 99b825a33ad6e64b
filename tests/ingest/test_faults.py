"""What goes wrong around a run: a full disk, an interrupt, an encoder that fails."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from reco_plugin import Reco
from reco_plugin.cli.app import app
from reco_plugin.errors import SessionError

from .conftest import Catalogue, Fill, assert_equal, content

pytestmark = pytest.mark.slow


def our_threads() -> int:
    """How many threads there are, but for the progress bar's, which starts with the first bar and stays."""
    return sum(thread.name != "tqdm_monitor" for thread in threading.enumerate())


def test_an_encoder_that_fails_stops_all_stages(
    write_catalogue: Catalogue, shop: Reco, reco: Reco, fill: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, calls, before = write_catalogue(), [], our_threads()
    images = shop.encoder.images

    def fails_at_the_third(batch: Any, progress: Any = None) -> Any:
        calls.append(len(batch))
        if len(calls) == 3:
            raise SessionError("the encoder fell over")
        return images(batch, progress)

    monkeypatch.setattr(shop.encoder, "images", fails_at_the_third)
    with pytest.raises(SessionError, match="fell over"):
        fill(source, shop)
    assert calls == [7, 7, 7]
    assert our_threads() <= before
    assert len(shop.memory) == 14  # whole batches
    monkeypatch.undo()
    assert fill(source, shop).unchanged == 14
    fill(source, reco)
    assert_equal(content(shop), content(reco))


def build(*arguments: object, model: Path) -> str:
    """What `reco memory build` says as it fails."""
    done = CliRunner().invoke(app, ["memory", "build", *map(str, arguments), "--model", str(model)])
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ")
    return done.stderr


def test_a_list_that_cannot_be_written_is_an_error(write_catalogue: Catalogue, model: Path, tmp_path: Path) -> None:
    source = write_catalogue([("gone", "gone.png", "x")])
    (tmp_path / "file").touch()
    rejected = tmp_path / "file" / "rejected.jsonl"
    assert "rejected.jsonl" in build(source, "--memory", tmp_path / "m", "--rejected", rejected, model=model)


def test_an_empty_table_and_missing_columns_make_no_memory(tmp_path: Path, model: Path) -> None:
    for name, header in (("empty.csv", "id,image,text"), ("columns.csv", "id,colour")):
        (tmp_path / name).write_text(f"{header}\n")
        assert name in build(tmp_path / name, "--memory", tmp_path / "m", model=model)
        assert not (tmp_path / "m").exists()
