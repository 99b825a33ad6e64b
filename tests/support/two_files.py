"""A model folder some of whose graphs have their weights in a second file, as large ones do."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
from onnx import TensorProto, numpy_helper

from reco_plugin.artifact import MANIFEST, Artifact, ModelFile
from reco_plugin.train.graph_file import save


def split_graphs(folder: Path, *names: str, factor: float = 1.0) -> Artifact:
    """Rewrite graphs of a folder, their checksums, and those that Triton tells its clients.

    ``factor`` makes another model of it: all weights of float32 times this.
    """
    artifact = Artifact.load(folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    for name in names:
        path, config = artifact.graph(name), folder / name / "config.pbtxt"
        model = onnx.load(path)
        for weights in model.graph.initializer if factor != 1 else ():
            if weights.data_type == TensorProto.FLOAT:
                weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * factor, weights.name))
        save(model, path, limit=0)
        file = ModelFile.of(path)
        config.write_text(config.read_text().replace(artifact.manifest.graphs[name].sha256, file.sha256))
        manifest["graphs"][name] = file.model_dump()
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return Artifact.load(folder)
