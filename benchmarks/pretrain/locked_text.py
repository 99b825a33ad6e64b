"""Train an image tower towards a text tower that is locked (LiT): the second preset of the quickstart's mini CLIP.

Zhai et al., *LiT: Zero-Shot Transfer with Locked-image text Tuning*, CVPR 2022, with the roles exchanged: there the
image tower is locked, here it is a pre-trained sentence encoder. Entities that are *unseen* are unseen for the image
tower only: the sentence encoder has read their names.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.modified_resnet import ModifiedResNet
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from reco_plugin.errors import DataError, InputError
from reco_plugin.files import whole_file
from reco_plugin.preprocess import ImageConfig, images_to_array
from reco_plugin.progress import progress_bar
from reco_plugin.quickstart.dataset import Quickstart
from reco_plugin.train.encoder import ImageTower
from reco_plugin.types import ImageInput, Vectors

from .contrastive import MEAN, STD, Embedded, PretrainConfig, Sampler, train_contrastive
from .sentences import SentenceTower
from .towers import VISION_CFG

NAME = "reco-quickstart-locked-text"
ABOUT = "locked_text.json"
"""Written last: a folder that holds it is complete."""
_WEIGHTS = "image.safetensors"


class ImageSide(nn.Module):
    """open_clip's ModifiedResNet with a projection to D, and CLIP's temperature."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        layers, width = VISION_CFG["layers"], VISION_CFG["width"]
        heads = width * 32 // 64  # as open_clip.model._build_vision_tower has it
        self.visual = ModifiedResNet(layers, dimension, heads, VISION_CFG["image_size"], width)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def encode_image(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) normalised -> (B, D), not unit-norm."""
        embedded: Tensor = self.visual(pixels)
        return embedded


@dataclass(frozen=True)
class LockedTextClip:
    """A trained image tower beside its locked text tower: encodes as any CLIP (protocol ``FrozenEncoder``).

    Attributes:
        name: for people.
        tower: (B, H, W, 3) uint8 -> (B, D) unit-norm, in evaluation mode.
        image: preprocessing of images.
        text: the locked tower.
        digest: sha256 over both towers' weights and the preprocessing: the encoder's fingerprint.
    """

    name: str
    tower: ImageTower
    image: ImageConfig
    text: SentenceTower
    digest: str

    @property
    def dimension(self) -> int:
        """D."""
        return self.text.dimension

    def images(self, images: Sequence[ImageInput], batch_size: int = 128) -> Vectors:
        """Encode images; (N, D) unit-norm.

        Raises:
            InputError: there is none, or one cannot be read.
        """
        if not len(images):
            raise InputError("no images to encode: the batch is empty")
        parts = []
        with torch.inference_mode(), progress_bar(total=len(images), desc="encode images", unit="image") as bar:
            for start in range(0, len(images), batch_size):
                pixels = images_to_array(images[start : start + batch_size], self.image)
                parts.append(self.tower(torch.from_numpy(np.ascontiguousarray(pixels))).numpy())
                bar.update(len(pixels))
        return np.concatenate(parts).astype(np.float32)

    def texts(self, texts: Sequence[str]) -> Vectors:
        """Encode texts; (N, D) unit-norm.

        Raises:
            InputError: there is none.
        """
        return self.text.texts(texts)


def train_locked(
    data: Quickstart, text: SentenceTower, out: Path, config: PretrainConfig | None = None
) -> LockedTextClip:
    """Train the image tower and write it; resumes from its checkpoint.

    Every text that a batch can hold is encoded once, before the first step: the text tower never changes.

    Args:
        data: the benchmark with its generic drawings.
        text: the locked tower.
        out: folder of the weights and the checkpoint.
        config: the recipe; sampler, augmentation, loss and optimiser are those of the preset from scratch.
    """
    config = config or PretrainConfig()
    out.mkdir(parents=True, exist_ok=True)
    row_of: dict[str, int] = {}

    def numbers(texts: list[str]) -> Tensor:
        return torch.tensor([[row_of[text]] for text in texts])

    sampler = Sampler(data, numbers, config)
    captions = sampler.texts()
    row_of.update((caption, row) for row, caption in enumerate(captions))
    vectors = torch.from_numpy(text.texts(captions))
    torch.manual_seed(config.seed)
    model = ImageSide(text.dimension)

    def embed(pixels: Tensor, tokens: Tensor) -> Embedded:
        return Embedded(F.normalize(model.encode_image(pixels), dim=-1), vectors[tokens[:, 0]])

    train_contrastive(model, embed, sampler, config, out / "checkpoint.pt", "locked-text CLIP")
    with whole_file(out / _WEIGHTS) as part:
        save_file({name: tensor.contiguous() for name, tensor in model.eval().state_dict().items()}, part)
    about = {"recipe": asdict(config), "text_digest": text.digest, "dimension": text.dimension}
    with whole_file(out / ABOUT) as part:
        part.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return load_locked(out, text)


def load_locked(folder: Path, text: SentenceTower) -> LockedTextClip:
    """Read what :func:`train_locked` wrote.

    Raises:
        DataError: nothing was written there yet, or it was trained towards another text tower.
    """
    if not (folder / ABOUT).is_file():
        raise DataError(f"{folder} holds no {ABOUT}: train the image tower first (train_locked)")
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    if about["text_digest"] != text.digest:
        raise DataError(
            f"the image tower in {folder} was trained towards a text tower with weights {about['text_digest'][:12]}, "
            f"not {text.digest[:12]}: give that one, or train again in another folder"
        )
    model = ImageSide(text.dimension)
    model.load_state_dict(load_file(folder / _WEIGHTS))
    side = VISION_CFG["image_size"]
    image = ImageConfig(size=(side, side), mean=MEAN, std=STD)
    tower = ImageTower(model.eval().requires_grad_(False), image)
    return LockedTextClip(NAME, tower, image, text, _digest(model, image, text))


def _digest(model: nn.Module, image: ImageConfig, text: SentenceTower) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.numpy()).tobytes())
    digest.update(json.dumps(image.to_dict(), sort_keys=True).encode())
    digest.update(text.digest.encode())
    return digest.hexdigest()
