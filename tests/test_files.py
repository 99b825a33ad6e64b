"""Files that are written atomically."""

from __future__ import annotations

from pathlib import Path

import pytest

from reco_plugin.errors import DataError
from reco_plugin.files import whole_file


def test_a_file_is_there_as_a_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "pairs [1].npz"
    with whole_file(path) as part:
        part.write_text("whole")
    with pytest.raises(KeyError), whole_file(path) as part:
        part.write_text("half")
        raise KeyError
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(DataError, match="cannot be written"), whole_file(tmp_path / "none" / "x") as part:
        part.write_text("x")
