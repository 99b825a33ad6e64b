"""A model folder with a graph that cannot be run, though it is what the manifest says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from reco_plugin.encoders.model_folder import MANIFEST
from reco_plugin.files import sha256_file


def with_broken_graph(model: Path, folder: Path, graph: str) -> Path:
    """Copy a model; one graph is zeros, and its checksum is theirs."""
    shutil.copytree(model, folder)
    path = folder / graph / "1" / "model.onnx"
    path.write_bytes(bytes(path.stat().st_size))
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["graphs"][graph]["sha256"] = sha256_file(path)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return folder
