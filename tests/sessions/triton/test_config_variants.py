"""What ``reco model export`` writes for GPUs, too: the same ``config.pbtxt`` is accepted where there is none."""

from __future__ import annotations

import json
import shutil
import urllib.request

import pytest

from reco_plugin.models.folder import graph_specs, render_config
from reco_plugin.models.options import Serving
from reco_plugin.sessions.triton.ports import Ports, read_config

pytestmark = pytest.mark.xdist_group("triton")


@pytest.mark.parametrize("accelerator", ["cuda", "tensorrt"])
def test_a_folder_for_gpus_loads_and_warms_up_on_a_cpu(start_server, artifact, tmp_path, accelerator):
    manifest, how = artifact.manifest, Serving(accelerator=accelerator)
    specs = graph_specs(manifest.image, manifest.text, manifest.dimension, manifest.policy.k)
    for name in manifest.graphs:
        shutil.copytree(artifact.folder / name, tmp_path / name)
        config = render_config(specs[name], how, half=True, sha256=manifest.graphs[name].sha256)
        (tmp_path / name / "config.pbtxt").write_text(config)
    server = start_server(tmp_path)
    for name in manifest.graphs:
        with urllib.request.urlopen(f"{server.http}/v2/models/{name}/config") as reply:
            found = json.load(reply)
        assert Ports.of(found) == read_config(artifact.folder / name / "config.pbtxt")
        warmed = sum(step["batch_size"] for step in found["model_warmup"])
        with urllib.request.urlopen(f"{server.http}/v2/models/{name}/stats") as reply:
            assert json.load(reply)["model_stats"][0]["inference_count"] == warmed >= how.max_batch
    server.kill()
