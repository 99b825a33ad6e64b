r"""LAION's clip_benchmark on a refined CLIP: ``pip install clip-benchmark``, then its own command line.

::

    python -m examples.evaluate_clip_benchmark eval --model_type reco --model triton_models \
        --pretrained frozen image@memory text@memory --dataset wds/birds --dataset_root birds --no_amp

``--pretrained`` names the refined queries, images or texts, and their memory. Class prompts stay plain here;
``reco eval`` refines them as one set.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from clip_benchmark import cli, models
from PIL import Image

from reco_plugin import Reco
from reco_plugin.encoders.preprocess import ImageConfig, image_to_array


class RecoModel:
    """The model that clip_benchmark calls; it returns unit-norm tensors (B, D)."""

    def __init__(self, reco: Reco, refined: str) -> None:
        self.reco, self.refined = reco, refined

    def eval(self) -> None:
        """Do nothing: the model has no training mode."""

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        """Embed pixels (B, H, W, 3) uint8 for texts."""
        pixels: Any = images.cpu().numpy()
        return torch.from_numpy(self.reco.embed_images(pixels, refine=self.refined == "image", target="text"))

    def encode_text(self, texts: Texts) -> torch.Tensor:
        """Embed texts for images."""
        return torch.from_numpy(self.reco.embed_texts(texts, refine=self.refined == "text", target="image"))


class Texts(list[str]):
    """The "tokenizer": it passes texts on, because the model has its own."""

    def to(self, _: Any) -> Texts:
        """Stay on the CPU."""
        return self


def load(model_name: str, pretrained: str, **_: Any) -> Any:
    """Open a model folder; ``pretrained`` is ``frozen``, ``image@MEMORY`` or ``text@MEMORY``."""
    refined, _, memory = pretrained.partition("@")
    reco = Reco.open(model_name, memory=memory or ":memory:", on_memory_failure="fail")
    transform = partial(pixels_of, config=reco.manifest.image)
    return RecoModel(reco, refined), transform, Texts


def pixels_of(image: Image.Image, config: ImageConfig) -> torch.Tensor:
    """Pixels for the encoder's graph, (H, W, 3) uint8."""
    return torch.from_numpy(image_to_array(image, config))


if __name__ == "__main__":
    models.TYPE2FUNC["reco"] = load
    models.MODEL_TYPES.append("reco")
    cli.main()
