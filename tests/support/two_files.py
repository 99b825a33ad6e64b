"""A model folder some of whose graphs have their weights in a second file, as large ones do."""

from __future__ import annotations

import json
from pathlib import Path

import onnx

from reco_plugin.encoders.model_folder import MANIFEST, Artifact, ModelFile
from reco_plugin.export.folder import save


def split_graphs(folder: Path, *names: str) -> Artifact:
    """Rewrite graphs of a folder, their checksums, and those that Triton tells its clients."""
    artifact = Artifact.load(folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    for name in names:
        path, config = artifact.graph(name), folder / name / "config.pbtxt"
        save(onnx.load(path), path, limit=0)
        file = ModelFile.of(path)
        config.write_text(config.read_text().replace(artifact.manifest.graphs[name].sha256, file.sha256))
        manifest["graphs"][name] = file.model_dump()
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return Artifact.load(folder)
