"""Put other fusions into a model folder: its encoder stays byte for byte, so memories and indexes stay valid."""

from __future__ import annotations

import os
import shutil
from importlib.metadata import version
from pathlib import Path

from ..artifact import (
    FORMAT,
    MANIFEST,
    TOKENIZER,
    Artifact,
    FusionInfo,
    ModelFile,
    Policy,
    whole_model,
)
from ..files import weights_file
from ..types import FuserName
from .export import export_graph, shape_of
from .graph_file import graph_file
from .loop import Fusions
from .model import FusionConfig
from .parity import Parity
from .to_onnx import fusion_cases
from .triton import graph_specs, render_config

_CONFIG = "config.pbtxt"


def refit(
    base: Artifact,
    fusions: Fusions | None,
    out: Path,
    *,
    policy: Policy,
    trained_on: str,
    image_config: FusionConfig | None = None,
    fuser: FuserName | None = None,
) -> list[Parity]:
    """Write a model folder with the encoder of another one; returns the parity of the fusions.

    Graphs of the encoder are hard links where the file system allows it. The fingerprint is the same. Other fusions of
    the base stay.

    Args:
        base: the folder with the encoder, the tokenizer and Triton's configuration; of an API, only its manifest.
        fusions: of the same dimension, beside the closed form; None: that alone.
        out: the folder; an older model there is replaced when the new one is complete.
        policy: defaults of the refinement.
        trained_on: source of the training pairs, for the manifest.
        image_config: shape of the image side, for the manifest, where it differs from the text side.
        fuser: which one refines by default; the new one when None.

    Raises:
        ArtifactError: a file of ``base`` is damaged, a fusion differs from torch by more than its precision allows, or
            ``out`` exists and is no model folder; nothing is written.
    """
    base.verify()
    manifest, parities, graphs = base.manifest, [], {}
    specs = graph_specs(manifest.image, manifest.text, manifest.dimension, policy.k)
    with whole_model(out) as folder:
        for case in fusion_cases(manifest.dimension, fusions, specs):
            path = graph_file(folder, case.spec.name)
            parities.append(export_graph(case, path, manifest.precision))
            graphs[case.spec.name] = ModelFile.of(path)
            config = render_config(case.spec, sha256=graphs[case.spec.name].sha256)
            (folder / case.spec.name / _CONFIG).write_text(config, encoding="utf-8")
        for name in [each for each in base.manifest.graphs if each not in graphs]:
            _take_graph(base.graph(name), graph_file(folder, name))
            shutil.copyfile(base.folder / name / _CONFIG, folder / name / _CONFIG)
            graphs[name] = manifest.graphs[name]
        if not manifest.api:
            shutil.copyfile(base.tokenizer, folder / TOKENIZER)
        made_with = manifest.made_with | {
            f"{name} (fusion)": version(name) for name in ("reco-plugin", "torch", "onnx")
        }
        shape = shape_of(fusions, image_config) or manifest.fusion.config
        default = fuser or (fusions.config.fuser if fusions else "reco")
        changed = {
            "format": FORMAT,
            "fusion": FusionInfo(fuser=default, config=shape, trained_on=trained_on),
            "policy": policy,
            "graphs": dict(sorted(graphs.items())),
            "made_with": made_with,
            "tokenizer": None if manifest.api else ModelFile.of(folder / TOKENIZER),
        }
        text = manifest.model_copy(update=changed).model_dump_json(indent=1)
        (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
    return parities


def _take_graph(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True)
    _take(source, target)
    if weights_file(source).exists():
        _take(weights_file(source), weights_file(target))


def _take(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
