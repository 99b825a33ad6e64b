"""``Reco`` with its graphs on a real Triton server: the same results by configuration alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from triton_server import ENCODERS
from two_files import split_graphs, with_other_weights

from reco_plugin import Reco
from reco_plugin.errors import SessionError

pytestmark = pytest.mark.xdist_group("triton")

CAPTIONS = ["a small red circle", "a large blue square", "circle", "a triangle that is green and rather large"]


@pytest.fixture(params=["grpc", "http"])
def remote(request, server, model):
    url = server.url(request.param)
    with Reco.open(model, memory=":memory:", triton_url=url) as opened:
        yield opened


def test_the_answers_are_those_of_the_process(remote, filled, drawings):
    remote.memory.add(drawings)
    images = [pair.image for pair in drawings[:7]]
    for refine in (False, True):
        for role in ("query", "candidate"):
            options = {"refine": refine, "role": role}
            for found, expected in (
                (remote.embed_texts(CAPTIONS, **options), filled.embed_texts(CAPTIONS, **options)),
                (remote.embed_images(images, **options), filled.embed_images(images, **options)),
            ):
                np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    moved = remote.embed_texts(CAPTIONS, refine=True) - remote.embed_texts(CAPTIONS, refine=False)
    assert np.abs(moved).max() > 1e-3


def test_batches_of_the_settings_above_the_servers_maximum_are_split(server, model, reco):
    texts = [f"{number} red squares" for number in range(150)]
    with Reco.open(model, memory=":memory:", triton_url=server.grpc, batch_size=150) as remote:
        found = remote.embed_texts(texts, refine=False)
    np.testing.assert_allclose(found, reco.embed_texts(texts, refine=False), rtol=0, atol=1e-5)


def test_the_client_needs_no_onnxruntime(server, model, artifact):
    code = (
        "import sys\nfrom reco_plugin import Reco\n"
        f"with Reco.open({str(model)!r}, memory=':memory:', triton_url={server.grpc!r}) as reco:\n"
        "    print(reco.embed_texts(['a red fox'], refine=False).shape)\n"
        "print('onnxruntime' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == [f"(1, {artifact.manifest.dimension})", "False"]
    assert done.stderr == ""


def test_weights_in_a_second_file_are_served_and_another_models_are_told_apart(start_server, model, tmp_path, reco):
    """The version's folder holds both files, and the checksum that Triton tells its clients covers both."""
    folder = Path(shutil.copytree(model, tmp_path / "served"))
    split_graphs(folder, "clip_image", "clip_text")
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    with_other_weights(other, "clip_text")
    server = start_server(folder, models=ENCODERS)
    with Reco.open(folder, memory=":memory:", triton_url=server.grpc) as remote:
        found = remote.embed_texts(CAPTIONS, refine=False)
    np.testing.assert_allclose(found, reco.embed_texts(CAPTIONS, refine=False), rtol=0, atol=1e-5)
    with (
        Reco.open(other, memory=":memory:", triton_url=server.grpc) as remote,
        pytest.raises(SessionError, match="clip_text is not the same on both sides"),
    ):
        remote.encoder.texts(CAPTIONS)
