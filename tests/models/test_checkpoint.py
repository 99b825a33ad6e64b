"""Checkpoints of transformers of each family: its own ids, pixels and vectors, and what cannot be exported is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from reco_plugin import Reco
from reco_plugin.artifact import Artifact
from reco_plugin.cli.app import app
from reco_plugin.errors import ConfigError
from reco_plugin.models.files import find_files
from reco_plugin.models.options import AddOptions
from reco_plugin.models.parity import SAMPLE_TEXTS, sample_images

pytest.importorskip("torch")
import torch
from families import FAMILIES, vector

from reco_plugin.models.checkpoint import load_checkpoint
from reco_plugin.models.open_clip import FrozenClip

pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("export")]  # as train/test_export.py
Written = Callable[[str, str], Path]
CUT = {"CLIP", "Chinese-CLIP", "MetaCLIP 2"}
"""Families whose towers give the same vectors for texts that are cut to their length."""


def load(source: Path) -> FrozenClip:
    files = find_files(str(source), AddOptions())
    assert not files.ready
    return load_checkpoint(files)


@pytest.fixture(scope="module")
def loaded(written: Written) -> Callable[[str], FrozenClip]:
    done: dict[str, FrozenClip] = {}

    def get(family: str) -> FrozenClip:
        if family not in done:
            done[family] = load(written(family, "checkpoint"))
        return done[family]

    return get


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_and_pictures_have_the_vectors_of_transformers(family: str, loaded: Callable[[str], FrozenClip]) -> None:
    clip = loaded(family)
    model, tokenizer = FAMILIES[family].build()
    texts, images = list(SAMPLE_TEXTS), [image.convert("RGB") for image in sample_images(3)]
    given = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
    with torch.no_grad():
        text = vector(model.get_text_features(**given))
        image = vector(
            model.get_image_features(FAMILIES[family].processor()(images, return_tensors="pt")["pixel_values"])
        )
    for found, expected, atol in ((clip.texts(texts), text, 1e-5), (clip.images(images), image, 2e-3)):
        np.testing.assert_allclose(found, torch.nn.functional.normalize(expected, dim=-1).numpy(), atol=atol)
    assert clip.text.dynamic is (family in CUT) is (clip.text.lengths[0] < clip.text.context_length)


def test_the_command_exports_a_checkpoint_and_its_texts_are_cut(
    written: Written, loaded: Callable[[str], FrozenClip], tmp_path: Path
) -> None:
    source, out = written("MetaCLIP 2", "checkpoint"), tmp_path / "out"
    done = CliRunner().invoke(app, ["model", "add", str(source), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "transformers, 24-d" in done.output
    clip = loaded("MetaCLIP 2")
    assert Artifact.load(out).manifest.digest == clip.digest
    with Reco.open(out, threads=1) as reco:
        np.testing.assert_allclose(reco.encoder.texts(["a red fox"]), clip.texts(["a red fox"]), atol=1e-5)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"auto_map": {"AutoModel": "modeling.Model"}}, "auto_map"),
        ({"model_type": "no-such-model"}, "transformers cannot load"),
        ({"model_type": "bert", "architectures": ["BertModel"]}, "get_image_features"),
    ],
)
def test_what_cannot_be_exported_is_said(
    content: dict[str, object], words: str, written: Written, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(written("CLIP", "checkpoint"), tmp_path / "source"))
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | content))
    with pytest.raises(ConfigError, match=words):
        load(source)
