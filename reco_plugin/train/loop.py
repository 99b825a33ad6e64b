"""Train fusions on frozen embeddings by RECO's loss; seeded, resumable, logged."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..defaults import BATCH, STEPS
from ..errors import ConfigError, DataError
from ..files import as_data_error, write_whole
from ..fuse import Fused, NeighbourFuser
from ..progress import progress_bar
from ..types import MODALITIES, Modality, Neighbours, Vectors
from .data import Batches, FusionBatch, FusionData, SideInputs
from .model import FuserKind, FusionConfig, build_fusion
from .processes import Processes

CHECKPOINT = "checkpoint.pt"
FUSION = "fusion.pt"


@dataclass(frozen=True)
class TrainConfig:
    """Hyper-parameters of a training."""

    steps: int = STEPS  # 0 leaves the fusion untrained
    batch: int = BATCH  # pairs per step, of all processes together, each of another group
    lr: float = 1e-3  # AdamW's peak rate
    warmup: int = 20  # steps to reach it; cosine decay after that
    temperature: float = 20.0  # start of the learnt inverse temperature
    drop: float = 0.1  # probability that a neighbour is left out, so that the layer does not depend on all k
    rotate: float = 0.7
    """Share of steps in which one random rotation is applied to queries and neighbours: a layer that copies neighbours
    is invariant to it, one that memorises is not."""
    seed: int = 0  # of start, batches and dropout
    precision: Literal["fp32", "bf16"] = "fp32"  # bf16: of the fusions, by torch's autocast; weights and loss stay fp32
    checkpoint_every: int = 100  # steps
    log_every: int = 10  # steps


class Fusions(nn.Module):
    """The image-side and the text-side fusion, and the temperature they are trained with."""

    def __init__(self, config: FusionConfig, temperature: float = 20.0) -> None:
        super().__init__()
        self.config = config
        self.sides = nn.ModuleDict({side: build_fusion(config) for side in MODALITIES})
        self.log_scale = nn.Parameter(torch.tensor(math.log(temperature)))

    def forward(self, sides: Mapping[Modality, SideInputs]) -> dict[Modality, Tensor]:
        """Refine a batch; (B, D) of each side."""
        return {name: self.sides[name](s.query, s.neighbours, s.similarity, s.trust)[0] for name, s in sides.items()}


def train_fusions(
    data: FusionData,
    fusion: FusionConfig,
    out: Path,
    config: TrainConfig | None = None,
    *,
    processes: Processes | None = None,
) -> Fusions:
    """Train on cached embeddings; an interrupted run resumes from its checkpoint with the same result.

    Several processes share each batch, contrast with all of it, and end with the same weights; all of them call this,
    with the same arguments. Only dropout's masks depend on how many they are.

    Args:
        data: N pairs and their neighbours.
        fusion: shape of the layer.
        out: folder for checkpoint, TensorBoard log and ``fusion.pt``, written by the first process and read by all.
        config: hyper-parameters.
        processes: from :func:`reco_plugin.train.processes.start`; this one alone, on the CPU, when None.

    Raises:
        ConfigError: ``out`` holds a run of another configuration, or the rate is so high that the loss is no number.
        DataError: too few groups to contrast.
    """
    config, processes = config or TrainConfig(), processes or Processes()
    batches = Batches(data, config.batch, seed=config.seed, drop=config.drop, rotate=config.rotate, processes=processes)
    torch.manual_seed(config.seed)
    model = Fusions(fusion, config.temperature).to(processes.device)
    if any(p.requires_grad for p in model.sides.parameters()):
        _run(model, batches, out, config, processes)
    processes.lead(lambda: save_fusions(model, out / FUSION))
    return model.eval()


def _run(model: Fusions, batches: Batches, out: Path, config: TrainConfig, processes: Processes) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, config))
    first = _restore(out / CHECKPOINT, model, optimizer, schedule, config)
    joined = processes.join(model.train())
    with _curves(out, first, processes) as log:
        for step in _progress(first, config.steps) if processes.leads else range(first, config.steps):
            # dropout is the same after a resume, and another in each process
            _seed(processes.device, config.seed * 1_000_003 + step + (processes.rank << 32))
            loss = _loss(joined, model.log_scale, batches.draw(step), config, processes)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if step % config.log_every == 0 and not math.isfinite(loss.item()):
                raise ConfigError(f"the loss is {loss.item()} at step {step}: delete {out}, and give a lower --lr")
            if log and step % config.log_every == 0:
                log.add_scalar("loss", loss.item(), step)
                log.add_scalar("temperature", model.log_scale.exp().item(), step)
            if processes.leads and (step + 1) % config.checkpoint_every == 0:
                _save(out / CHECKPOINT, step + 1, model, optimizer, schedule, config)


def _seed(device: torch.device, seed: int) -> None:
    """Seed what draws on a device. ``torch.manual_seed`` notes a traceback for every accelerator that is not there."""
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def _curves(out: Path, first: int, processes: Processes) -> Any:
    """TensorBoard's writer in the first process, None in the others."""
    if not processes.leads:
        return nullcontext()
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(out / "tensorboard"), purge_step=first)


def _progress(first: int, steps: int) -> Iterator[int]:
    return iter(progress_bar(range(first, steps), initial=first, total=steps, desc="train fusions", unit="step"))


def _loss(
    joined: nn.Module, log_scale: Tensor, batch: FusionBatch, config: TrainConfig, processes: Processes
) -> Tensor:
    with torch.autocast(processes.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        refined = joined(batch.own)
    image, text = (processes.gather(refined[side].float()) for side in MODALITIES)
    scale = log_scale.clamp(0, math.log(100)).exp()
    return reco_loss(batch.frozen["image"], batch.frozen["text"], image, text, scale)


def reco_loss(image: Tensor, text: Tensor, refined_image: Tensor, refined_text: Tensor, scale: Tensor) -> Tensor:
    """RECO's loss (paper, section 3.4): refined with refined, refined image with frozen text, and the reverse.

    The three terms have equal weight; the frozen pair has none. The one-sided terms keep refined vectors compatible
    with a frozen index. All embeddings are (B, D) and unit-norm.
    """
    return (
        info_nce(refined_image, refined_text, scale)
        + info_nce(refined_image, text, scale)
        + info_nce(image, refined_text, scale)
    )


def info_nce(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE of matching rows, (B, D) each and unit-norm; scale is the inverse temperature.

    >>> eye = torch.eye(2)
    >>> round(info_nce(eye, eye, torch.tensor(1.0)).item(), 4)  # -log(e / (e + 1))
    0.3133
    """
    logits, target = scale * image @ text.T, torch.arange(len(image), device=image.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def _rate(step: int, config: TrainConfig) -> float:
    if step < config.warmup:
        return (step + 1) / config.warmup
    return 0.5 * (1 + math.cos(math.pi * (step - config.warmup) / max(1, config.steps - config.warmup)))


def _write(path: Path, content: dict[str, Any]) -> None:
    made = io.BytesIO()
    torch.save(content, made)  # on a full disk it raises no OSError
    with as_data_error(f"{path} cannot be written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda file: file.write(made.getbuffer()))


def _save(path: Path, step: int, model: Fusions, optimizer: Any, schedule: Any, config: TrainConfig) -> None:
    parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
    _write(path, {"step": step, "config": asdict(config), "fusion": asdict(model.config), **parts})


def _restore(path: Path, model: Fusions, optimizer: Any, schedule: Any, config: TrainConfig) -> int:
    """Load a checkpoint of the same configuration; returns the step to go on from."""
    if not path.is_file():
        return 0
    try:
        saved = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # see load_fusions
        raise DataError(f"{path} is damaged, delete it to start anew: {error}") from error
    if (saved["config"], _config(saved["fusion"])) != (asdict(config), model.config):
        raise ConfigError(
            f"{path} belongs to a run of another configuration ({saved['config']}, {saved['fusion']}): "
            "give another --out, or delete that folder to start anew"
        )
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    schedule.load_state_dict(saved["schedule"])
    return int(saved["step"])


def save_fusions(model: Fusions, path: Path) -> None:
    """Write weights and configuration atomically."""
    _write(path, {"fusion": asdict(model.config), "model": model.state_dict()})


def _config(stored: Mapping[str, Any]) -> FusionConfig:
    """The configuration in a file; older ones have fields of fusions that are gone."""
    known = {field.name for field in fields(FusionConfig)}
    return FusionConfig(**{name: value for name, value in stored.items() if name in known})


def load_fusions(path: Path) -> Fusions:
    """Read what :func:`save_fusions` wrote."""
    if not path.is_file():
        raise DataError(f"no trained fusion at {path}: give the folder that `reco train --out` wrote")
    try:
        saved = torch.load(path, weights_only=True)
        config = _config(saved["fusion"])
        if config.fuser in get_args(FuserKind):
            model = Fusions(config)
            model.load_state_dict(saved["model"])
            return model.eval()
    except Exception as error:  # torch and pickle raise many classes on damaged files
        raise DataError(f"{path} is no fusion that `reco train` wrote: {error}") from error
    raise DataError(
        f"{path} holds a fusion of an older version, {config.fuser!r}: the closed form took its place and needs no "
        "training. Leave --fusion out, or train the paper's layer"
    )


class TorchFuser(NeighbourFuser):
    """A fuser that runs the trained modules in torch, to evaluate a training run before export."""

    def __init__(self, fusions: Fusions) -> None:
        self.name = fusions.config.fuser
        self._fusions = fusions.eval()

    def fuse(
        self, modality: Modality, vectors: Vectors, neighbours: Neighbours, trust: npt.NDArray[np.float32]
    ) -> Fused:
        """Refine (B, D), see :meth:`reco_plugin.fuse.Fuser.fuse`."""
        inputs = (vectors, neighbours.vectors, neighbours.similarity, trust)
        with torch.inference_mode():
            refined, weights = self._fusions.sides[modality](
                *(torch.from_numpy(np.ascontiguousarray(x)) for x in inputs)
            )
        return Fused(refined.numpy(), weights.numpy())
