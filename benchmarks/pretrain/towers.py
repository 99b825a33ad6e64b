"""Train the mini CLIP of the quickstart with open_clip's model, on 2 cores.

It never sees entities of the splits *fusion*, *dev* and *unseen*, the query styles, and one memory style, which trains
the paper's layer.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import torch
from open_clip import CLIP
from open_clip.tokenizer import SimpleTokenizer, default_bpe
from safetensors.torch import save_file
from torch import Tensor

from reco_plugin.quickstart.dataset import Quickstart

from .contrastive import MEAN, STD, Embedded, PretrainConfig, Sampler, train_contrastive

_MERGES = 4096 - 512 - 2  # so that the vocabulary (bytes, bytes at a word's end, merges, two specials) is 4,096
VISION_CFG: dict[str, Any] = {"layers": [1, 1, 1, 1], "width": 16, "image_size": 64}
"""open_clip's ModifiedResNet, at its smallest."""
MODEL_CFG: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": VISION_CFG,
    "text_cfg": {"context_length": 20, "vocab_size": 4096, "width": 128, "heads": 4, "layers": 2},
}
"""An open_clip model configuration: ModifiedResNet and a two-layer text transformer, 2.3 M parameters."""


def write_tokenizer(path: Path) -> None:
    """CLIP's byte-pair merges cut to the first 3,582 (MIT, OpenAI), in open_clip's own file format."""
    with gzip.open(default_bpe()) as full:
        lines = full.read().decode("utf-8").split("\n")[: _MERGES + 1]
    path.write_bytes(gzip.compress("\n".join(lines).encode("utf-8"), mtime=0))


def pretrain(data: Quickstart, out: Path, config: PretrainConfig | None = None) -> Path:
    """Train the mini CLIP, and write it as open_clip's ``local-dir:`` model."""
    config = config or PretrainConfig()
    out.mkdir(parents=True, exist_ok=True)
    bpe = (out / "bpe.txt.gz").resolve()
    write_tokenizer(bpe)
    tokenizer = SimpleTokenizer(bpe_path=str(bpe), context_length=MODEL_CFG["text_cfg"]["context_length"])
    torch.manual_seed(config.seed)
    model = CLIP(**MODEL_CFG)

    def embed(pixels: Tensor, tokens: Tensor) -> Embedded:
        return Embedded(model.encode_image(pixels, normalize=True), model.encode_text(tokens, normalize=True))

    train_contrastive(model, embed, Sampler(data, tokenizer, config), config, "mini CLIP")
    _write_model(model, out, bpe)
    return out


def _write_model(model: CLIP, out: Path, bpe: Path) -> None:
    text_cfg = MODEL_CFG["text_cfg"] | {"tokenizer_kwargs": {"bpe_path": str(bpe)}}
    config = {
        "model_cfg": MODEL_CFG | {"text_cfg": text_cfg},
        "preprocess_cfg": {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"},
    }
    weights = {name: tensor.contiguous() for name, tensor in model.eval().state_dict().items()}
    tmp = out / "open_clip_model.safetensors.tmp"
    save_file(weights, tmp)
    tmp.replace(out / "open_clip_model.safetensors")
    (out / "open_clip_config.json").write_text(json.dumps(config, indent=1))
