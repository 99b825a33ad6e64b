"""A model folder some of whose graphs have their weights in a second file, as large ones do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir

from reco_plugin.artifact import MANIFEST, Artifact, ModelFile
from reco_plugin.train.graph_file import changed, read_graph, write_graph


def split_graphs(folder: Path, *names: str) -> Artifact:
    """Rewrite graphs of a folder, their checksums, and those that Triton tells its clients."""
    artifact = Artifact.load(folder)
    for name in names:
        path = artifact.graph(name)
        write_graph(read_graph(path), path, limit=0)
    return _told(artifact, *names)


def with_other_weights(folder: Path, name: str) -> Artifact:
    """Give a graph the weights of another model, of which each file is what the manifest says."""
    artifact = Artifact.load(folder)
    path = artifact.graph(name)
    model = read_graph(path)
    for value in model.graph.initializers.values():
        if value.const_value is not None and value.const_value.dtype == ir.DataType.FLOAT:
            value.const_value = changed(value.const_value, lambda values: values * 0.5, np.float32)
    write_graph(model, path, limit=0)
    return _told(artifact, name)


def _told(artifact: Artifact, *names: str) -> Artifact:
    """Put the new checksums of graphs where they are read."""
    folder = artifact.folder
    manifest = json.loads((folder / MANIFEST).read_text())
    for name in names:
        path, config = artifact.graph(name), folder / name / "config.pbtxt"
        file = ModelFile.of(path)
        config.write_text(config.read_text().replace(artifact.manifest.graphs[name].sha256, file.sha256))
        manifest["graphs"][name] = file.model_dump()
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return Artifact.load(folder)
