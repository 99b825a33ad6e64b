"""The path of a row: how many files of the package it crosses, and how often its table is opened."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from made_sources import png

import reco_plugin
from reco_plugin import Reco
from reco_plugin.data import Rows, open_rows
from reco_plugin.ingest import IngestOptions, ingest

PACKAGE = str(Path(reco_plugin.__file__).parent)
MOST = 20


class Traced:
    """Files of the package that a run crosses, in all threads, from the first row until the memory has learned."""

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}

    def __enter__(self) -> Traced:
        threading.setprofile(self.count)
        sys.setprofile(self.count)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]

    def count(self, frame: FrameType, event: str, _: Any) -> None:
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(PACKAGE):
            self.calls[name] = self.calls.get(name, 0) + 1


def shop(folder: Path, rows: int) -> Path:
    folder.mkdir()
    lines = [f"{folder.name}-{row},{row}.png,thing number {row},{row % 3}" for row in range(rows)]
    for row in range(rows):
        (folder / f"{row}.png").write_bytes(png())
    (folder / "shop.csv").write_text("\n".join(["id,image,text,shelf", *lines]))
    return folder / "shop.csv"


def trace(rows: Rows, reco: Reco, tmp_path: Path) -> dict[str, int]:
    traced = Traced()
    options = IngestOptions(rejected=tmp_path / "rejected.jsonl", listed=tmp_path / "listed.jsonl")
    with traced:
        done = ingest(rows, reco, options)
    assert done.added == done.read == rows.total
    return {Path(name).relative_to(PACKAGE).as_posix(): calls for name, calls in traced.calls.items()}


def test_a_row_of_a_table_crosses_few_files(tmp_path: Path, model: Path) -> None:
    with Reco.open(model, ":memory:") as reco:
        trace(open_rows(shop(tmp_path / "first", 5)), reco, tmp_path)  # what is lazy is opened
        five = trace(open_rows(shop(tmp_path / "five", 5)), reco, tmp_path)
        six = trace(open_rows(shop(tmp_path / "six", 6)), reco, tmp_path)
    assert len(six) <= MOST, sorted(six)
    assert {"data/tables.py", "ingest/write.py", "encode.py", "memory/exact.py"} <= six.keys()
    of_one_row = {name for name, calls in six.items() if calls > five.get(name, 0)}
    assert len(of_one_row) <= MOST, sorted(of_one_row)


def test_a_table_is_opened_once_to_find_its_rows_and_once_to_read_them(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, opened = shop(tmp_path / "shop", 3), list[str]()
    really = Path.open
    monkeypatch.setattr(
        Path, "open", lambda path, *args, **how: (opened.append(path.name), really(path, *args, **how))[1]
    )
    with Reco.open(model, ":memory:") as reco:
        trace(open_rows(table), reco, tmp_path)
    assert opened.count("shop.csv") == 2
