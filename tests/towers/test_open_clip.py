"""Families of open_clip: texts are cut wherever a test finds the same vectors, whatever class the text tower has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from families import OPEN_CLIP_FAMILIES

from reco_plugin.train.encoder import load_frozen
from reco_plugin.train.parity import SAMPLE_TEXTS


@pytest.mark.parametrize("family", OPEN_CLIP_FAMILIES)
def test_texts_are_cut_where_that_is_exact(family: str, tmp_path: Path) -> None:
    row = OPEN_CLIP_FAMILIES[family]
    clip = load_frozen(row.write(tmp_path))
    assert clip.text.dynamic is row.cut
    assert clip.text.lengths == ((16, 24) if row.cut else (24,))
    if row.cut:
        short = [text for text in SAMPLE_TEXTS if len(text) < 20]
        whole = clip.texts(short)
        ids = torch.zeros(1, 16, dtype=torch.int32)
        ids[0, :4] = torch.tensor([4094, 7, 300, 4095])
        padded = torch.cat([ids, torch.zeros(1, 8, dtype=torch.int32)], dim=1)
        with torch.no_grad():
            found, expected = clip.tower("text")(ids), clip.model.encode_text(padded.long(), normalize=True)  # type: ignore[operator]
        np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-5)
        assert np.linalg.matrix_rank(whole[:3]) == 3
