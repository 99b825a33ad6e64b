"""Put other fusions into a model folder: its encoder stays byte for byte, so memories and indexes stay valid."""

from __future__ import annotations

import os
import shutil
from importlib.metadata import version
from pathlib import Path

from ..artifact import FORMAT, MANIFEST, TOKENIZER, Artifact, ModelFile, Policy, clip_graph
from ..types import MODALITIES
from .export import export_graph, fusion_info, graph_file, whole_model
from .graphs import fusion_cases
from .loop import Fusions
from .model import FusionConfig
from .parity import Parity
from .serving import Serving
from .triton import GraphSpec, graph_specs, render_config

_CONFIG = "config.pbtxt"


def refit(
    base: Artifact,
    fusions: Fusions,
    out: Path,
    *,
    policy: Policy,
    trained_on: str,
    image_config: FusionConfig | None = None,
) -> list[Parity]:
    """Write a model folder with the encoder of another one; returns the parity of the fusions.

    Graphs of the encoder are hard links where the file system allows it. The fingerprint is the same.

    Args:
        base: the folder with the encoder, the tokenizer and Triton's configuration.
        fusions: of the same dimension.
        out: the folder; an older model there is replaced when the new one is complete.
        policy: defaults of the refinement.
        trained_on: source of the training pairs, for the manifest.
        image_config: shape of the image side, for the manifest, where it differs from the text side.

    Raises:
        ArtifactError: a file of ``base`` is damaged, a fusion differs from torch by more than its precision allows, or
            ``out`` exists and is no model folder; nothing is written.
    """
    base.verify()
    manifest, parities = base.manifest, []
    specs = graph_specs(manifest.image, manifest.text, manifest.dimension, policy.k)
    with whole_model(out) as folder:
        for name in map(clip_graph, MODALITIES):
            _take(base.graph(name), graph_file(folder, name))
            shutil.copyfile(base.folder / name / _CONFIG, folder / name / _CONFIG)
        shutil.copyfile(base.tokenizer, folder / TOKENIZER)
        graphs = dict(manifest.graphs)
        for case in fusion_cases(manifest.dimension, fusions, specs):
            path = graph_file(folder, case.spec.name)
            parities.append(export_graph(case, path, manifest.precision, "single"))
            graphs[case.spec.name] = ModelFile.of(path)
            config = _config(base, case.spec, graphs[case.spec.name].sha256)
            (folder / case.spec.name / _CONFIG).write_text(config, encoding="utf-8")
        fusion = fusion_info(fusions, trained_on, image_config)
        made_with = manifest.made_with | {
            f"{name} (fusion)": version(name) for name in ("reco-plugin", "torch", "onnx")
        }
        changed = {"format": FORMAT, "fusion": fusion, "policy": policy, "graphs": graphs, "made_with": made_with}
        tokenizer = ModelFile.of(folder / TOKENIZER)
        text = manifest.model_copy(update={**changed, "tokenizer": tokenizer}).model_dump_json(indent=1)
        (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
    return parities


def _config(base: Artifact, spec: GraphSpec, sha256: str) -> str:
    """Triton's configuration of the base, for another file and number of neighbours."""
    manifest = base.manifest
    text = (base.folder / spec.name / _CONFIG).read_text(encoding="utf-8")
    before, half = manifest.graphs[spec.name].sha256, manifest.precision == "fp16"
    old = graph_specs(manifest.image, manifest.text, manifest.dimension, manifest.policy.k)[spec.name]
    if text == render_config(old, Serving(), half=half, sha256=before):
        return render_config(spec, Serving(), half=half, sha256=sha256)
    return text.replace(before, sha256)  # keeps options that are not in the manifest; only the warm-up keeps its k


def _take(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
