"""Trains the paper's layer: pairs -> frozen vectors -> neighbours -> RECO's loss."""

from __future__ import annotations

import io
import json
import math
import warnings
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..defaults import BATCH, STEPS
from ..encoders.local import encode_pairs
from ..errors import ConfigError, DataError
from ..files import as_data_error, whole_file, write_whole
from ..fusion.base import Fused, NeighbourFuser
from ..memory import Memory, memory_of, open_memory
from ..progress import progress_bar
from ..settings import load_settings
from ..sources import open_rows, read_pairs
from ..sources.rows import groups_of, payload_key
from ..sources.same_encoder import EncoderCheck
from ..types import MODALITIES, Fingerprint, Modality, Neighbours, Records, Vectors
from .export_options import Recipe
from .training_data import Batches, FusionData, SideInputs, gather, hidden_ids

if TYPE_CHECKING:
    from .open_clip import FrozenClip

FUSION = "fusion.pt"
_LOG_EVERY = 10  # steps between two points of the loss curve


@dataclass(frozen=True)
class FusionConfig:
    """Shape of the layer. The paper does not specify heads, width, norms or a null slot."""

    dimension: int  # D
    heads: int = 8
    hidden: int = 0  # width of the MLP; 0: 4 D
    dropout: float = 0.1  # on the attention output and the MLP, in training

    def __post_init__(self) -> None:
        if self.dimension % self.heads:
            raise ConfigError(
                f"dimension {self.dimension} is not divisible by {self.heads} heads: choose other --heads"
            )


class FusionLayer(nn.Module):
    """Query (B, D), neighbours (B, K, D), similarity (B, K), trust (B, K) -> refined (B, D), weights (B, K).

    Trust 0 marks an absent neighbour. Without neighbours, the query is returned unchanged. Parameters have the names of
    ``nn.TransformerEncoderLayer``.
    """

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        d, hidden = config.dimension, config.hidden or 4 * config.dimension
        self.config = config
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.in_proj = nn.Linear(d, 3 * d)
        self.out_proj = nn.Linear(d, d)
        self.linear1, self.linear2 = nn.Linear(d, hidden), nn.Linear(hidden, d)
        self.role = nn.Parameter(torch.zeros(2, d))  # added to the query / to every neighbour
        self.null = nn.Parameter(torch.zeros(d))
        self.dropout = nn.Dropout(config.dropout)
        nn.init.xavier_uniform_(self.in_proj.weight)
        nn.init.zeros_(self.in_proj.bias)
        nn.init.zeros_(self.out_proj.bias)
        nn.init.normal_(self.role, std=0.02)
        nn.init.normal_(self.null, std=0.02)

    def forward(self, query: Tensor, neighbours: Tensor, similarity: Tensor, trust: Tensor) -> tuple[Tensor, Tensor]:
        """Refine (B, D) by (B, K, D); returns (B, D) unit-norm and the neighbours' shares (B, K)."""
        present = trust > 0
        tokens = self.tokens(query, neighbours)  # (B, 2 + K, D)
        q, k, v = self._heads(self.norm1(tokens))
        logits = (q @ k.transpose(-1, -2)).squeeze(2) / math.sqrt(q.shape[-1])  # (B, heads, 2 + K)
        attention = logits.masked_fill(~F.pad(present, (2, 0), value=True)[:, None], -math.inf).softmax(-1)
        gathered = (attention.unsqueeze(2) @ v).flatten(1)  # (B, heads, 1, D / heads) -> (B, D)
        x = tokens[:, 0] + self.dropout(self.out_proj(gathered))
        x = x + self.dropout(self.linear2(self.dropout(F.gelu(self.linear1(self.norm2(x))))))
        refined = torch.where(
            present.any(1, keepdim=True), F.normalize(x, dim=-1), query
        )  # unchanged without neighbours
        return refined, attention[:, :, 2:].mean(1)

    def tokens(self, query: Tensor, neighbours: Tensor) -> Tensor:
        """Return (B, 2 + K, D): the query, the null slot and the neighbours, each with its role added."""
        null = self.null.expand(query.shape[0], 1, -1)
        return torch.cat([(query + self.role[0]).unsqueeze(1), null, neighbours + self.role[1]], dim=1)

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project the first token to queries (B, heads, 1, d), and all tokens to keys and values (B, heads, 2+K, d)."""
        d = self.config.dimension
        weight, bias = self.in_proj.weight, self.in_proj.bias
        q = F.linear(x[:, :1], weight[:d], bias[:d])
        k, v = F.linear(x, weight[d:], bias[d:]).chunk(2, dim=-1)
        return self._split(q), self._split(k), self._split(v)

    def _split(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, heads, N, D / heads)."""
        return x.reshape(x.shape[0], x.shape[1], self.config.heads, -1).transpose(1, 2)


@dataclass(frozen=True)
class TrainConfig:
    """Hyper-parameters of a training."""

    steps: int = STEPS  # 0 leaves the fusion untrained
    batch: int = BATCH  # pairs per step, of different groups
    lr: float = 1e-3  # peak learning rate of AdamW
    warmup: int = 20  # steps up to the peak, before a cosine decay
    temperature: float = 20.0  # initial inverse temperature, which is learned
    drop: float = 0.0  # probability that a neighbour is left out; 0 in the paper
    seed: int = 0  # seed of initial weights, batches and dropout


class Fusions(nn.Module):
    """The fusions of images and texts, and the temperature of their training."""

    def __init__(self, config: FusionConfig, temperature: float = 20.0) -> None:
        super().__init__()
        self.config = config
        self.sides = nn.ModuleDict({side: FusionLayer(config) for side in MODALITIES})
        self.log_scale = nn.Parameter(torch.tensor(math.log(temperature)))

    def forward(self, sides: Mapping[Modality, SideInputs]) -> dict[Modality, Tensor]:
        """Refine a batch to (B, D) for each modality."""
        return {name: self.sides[name](s.query, s.neighbours, s.similarity, s.trust)[0] for name, s in sides.items()}


def train_fusions(
    data: FusionData, fusion: FusionConfig, out: Path, config: TrainConfig | None = None, *, device: str = "cpu"
) -> Fusions:
    """Train on cached embeddings.

    Args:
        data: N pairs and their neighbours.
        fusion: shape of the layer.
        out: folder for the TensorBoard log and ``fusion.pt``.
        config: hyper-parameters.
        device: name of a torch device.

    Returns:
        The trained fusions, on the CPU.

    Raises:
        ConfigError: torch cannot use the device, or the loss is not finite at this learning rate.
        DataError: fewer than two groups.
    """
    config, place = config or TrainConfig(), _device(device)
    batches = Batches(data, config.batch, seed=config.seed, drop=config.drop, device=place)
    torch.manual_seed(config.seed)
    model = Fusions(fusion, config.temperature)
    model.to(place)
    _run(model.train(), batches, out, config)
    model.to("cpu").eval()
    save_fusions(model, out / FUSION)
    return model


def _device(name: str) -> torch.device:
    try:
        return torch.zeros((), device=name).device
    except Exception as error:  # RuntimeError, AssertionError or NotImplementedError
        raise ConfigError(f"torch cannot use device {name!r}: leave --device out to train on the CPU") from error


def _run(model: Fusions, batches: Batches, out: Path, config: TrainConfig) -> None:
    from torch.utils.tensorboard import SummaryWriter

    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, config))
    with SummaryWriter(str(out / "tensorboard")) as log:
        for step in progress_bar(range(config.steps), total=config.steps, desc="train fusions", unit="step"):
            loss = _loss(model, batches.draw(step))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if step % _LOG_EVERY == 0:
                if not math.isfinite(loss.item()):
                    raise ConfigError(f"the loss is {loss.item()} at step {step}: give a lower --lr")
                log.add_scalar("loss", loss.item(), step)


def _loss(model: Fusions, batch: Mapping[Modality, SideInputs]) -> Tensor:
    image, text = (batch[side].query for side in MODALITIES)
    refined = model(batch)
    scale = model.log_scale.clamp(0, math.log(100)).exp()
    return reco_loss(image, text, refined["image"], refined["text"], scale)


def reco_loss(image: Tensor, text: Tensor, refined_image: Tensor, refined_text: Tensor, scale: Tensor) -> Tensor:
    """Return RECO's loss (paper, section 3.4): the sum of InfoNCE for three pairs of embeddings, (B, D) and unit-norm.

    The pairs are refined image and refined text, refined image and frozen text, and frozen image and refined text. The
    latter two keep refined vectors compatible with a frozen index.
    """
    return (
        info_nce(refined_image, refined_text, scale)
        + info_nce(refined_image, text, scale)
        + info_nce(image, refined_text, scale)
    )


def info_nce(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """Return the symmetric InfoNCE of matching rows, (B, D) and unit-norm; ``scale`` is the inverse temperature."""
    logits, target = scale * image @ text.T, torch.arange(len(image), device=image.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def _rate(step: int, config: TrainConfig) -> float:
    if step < config.warmup:
        return (step + 1) / config.warmup
    return 0.5 * (1 + math.cos(math.pi * (step - config.warmup) / max(1, config.steps - config.warmup)))


def save_fusions(model: Fusions, path: Path) -> None:
    """Write weights and configuration."""
    buffer = io.BytesIO()  # torch.save to a full disk raises no OSError
    torch.save({"fusion": asdict(model.config), "model": model.state_dict()}, buffer)
    with as_data_error(f"{path} cannot be written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda file: file.write(buffer.getbuffer()))


def load_fusions(path: Path) -> Fusions:
    """Read the file that :func:`save_fusions` wrote.

    Raises:
        DataError: the file is missing or is not such a file.
    """
    if not path.is_file():
        raise DataError(f"no trained fusion at {path}: give the folder that `reco model train --out` wrote")
    try:
        saved = torch.load(path, weights_only=True)
        model = Fusions(FusionConfig(**saved["fusion"]))
        model.load_state_dict(saved["model"])
        model.eval()
        return model
    except Exception as error:  # torch and pickle raise many classes on damaged files
        raise DataError(f"{path} is not a fusion that `reco model train` wrote: {error}") from error


class TorchFuser(NeighbourFuser):
    """A fuser in torch, to evaluate a training before the export."""

    name = "paper"

    def __init__(self, fusions: Fusions) -> None:
        self._fusions = fusions.eval()

    def fuse(
        self, modality: Modality, vectors: Vectors, neighbours: Neighbours, trust: npt.NDArray[np.float32]
    ) -> Fused:
        """Refine (B, D), see :meth:`reco_plugin.fusion.base.Fuser.fuse`."""
        inputs = (vectors, neighbours.vectors, neighbours.similarity, trust)
        with torch.inference_mode():
            refined, weights = self._fusions.sides[modality](
                *(torch.from_numpy(np.ascontiguousarray(x)) for x in inputs)
            )
        return Fused(refined.numpy(), weights.numpy())


def train(recipe: Recipe, out: Path) -> Fusions:
    """Train the fusions on the pairs of a recipe; writes ``fusion.pt`` and ``recipe.json``.

    Raises:
        ConfigError: torch cannot use the device, or the dimension is not divisible by the heads.
        DataError: the source cannot be read, or no pair has a neighbour.
    """
    from .open_clip import load_frozen

    _device(recipe.device)
    clip = load_frozen(recipe.model, recipe.pretrained, random_weights=recipe.random_weights)
    fusion = FusionConfig(clip.dimension, heads=recipe.heads)
    with closing(_memory(recipe, clip)) as memory:  # check the memory before encoding
        pairs = _encode(clip, recipe.source)
        if not recipe.memory:
            memory.upsert(pairs)
        hidden = hidden_ids(memory, pairs, threshold=recipe.near_duplicate)
        group = None if recipe.group is None else payload_key(open_rows(recipe.source), recipe.group)
        data = gather(memory, pairs, recipe.k, groups_of(pairs, group), hidden)
    if not any(near.is_present.any() for near in data.neighbours.values()):
        raise DataError(
            "no pair has a neighbour besides near-duplicates of itself, which are hidden. Give a larger --memory or a "
            f"--near-duplicate above {recipe.near_duplicate}"
        )
    config = TrainConfig(steps=recipe.steps, batch=recipe.batch, lr=recipe.lr, drop=recipe.drop, seed=recipe.seed)
    fusions = train_fusions(data, fusion, out, config, device=recipe.device)
    with whole_file(out / Recipe.file) as part:
        part.write_text(json.dumps(recipe.model_dump(mode="json") | {"encoder": clip.digest}, indent=1) + "\n", "utf-8")
    return fusions


def _encode(clip: FrozenClip, source: str) -> Records:
    """Encode the source's pairs, (N, D) each; vectors among them are compared with the encoder's."""
    pairs = list(read_pairs(source))  # not empty, and each id once: else it raises
    same = EncoderCheck(clip, f"{clip.name} (sha256 {clip.digest[:12]})", open_rows(source))
    same.compare_pairs(pairs)
    encoded = encode_pairs(clip, pairs)
    if same.is_incomplete:
        warnings.warn(str(same.note), stacklevel=3)
    return encoded


def _memory(recipe: Recipe, clip: FrozenClip) -> Memory:
    """Open the memory to retrieve from; a new one for the training pairs if the recipe has none."""
    fingerprint = Fingerprint(clip.name, clip.digest, clip.dimension)
    if not recipe.memory:
        return open_memory(":memory:", fingerprint)
    memory = memory_of(load_settings(memory=recipe.memory), fingerprint, create=False)
    if not memory.count():
        memory.close()
        raise DataError(f"the memory {memory.location} is empty: fill it by reco memory add")
    return memory
