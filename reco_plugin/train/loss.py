"""RECO's loss (paper, section 3.4)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(image: Tensor, text: Tensor, scale: Tensor, same: Tensor | None = None) -> Tensor:
    """Symmetric InfoNCE of matching rows.

    Args:
        image: (B, D) unit-norm.
        text: (B, D) unit-norm; row i belongs to image i.
        scale: inverse temperature.
        same: (B, B) True where another row shows the same thing and is no negative.

    >>> eye = torch.eye(2)
    >>> round(info_nce(eye, eye, torch.tensor(1.0)).item(), 4)  # -log(e / (e + 1))
    0.3133
    """
    logits = scale * image @ text.T
    if same is not None:
        eye = torch.eye(len(image), dtype=torch.bool, device=image.device)
        logits = logits.masked_fill(same & ~eye, -math.inf)
    target = torch.arange(len(image), device=image.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def reco_loss(
    image: Tensor, text: Tensor, refined_image: Tensor, refined_text: Tensor, scale: Tensor, same: Tensor | None = None
) -> Tensor:
    """Three terms of equal weight: refined with refined, refined image with frozen text, and the reverse.

    The frozen pair has no term. The one-sided terms keep refined vectors compatible with a frozen index.
    All embeddings are (B, D) and unit-norm.
    """
    return (
        info_nce(refined_image, refined_text, scale, same)
        + info_nce(refined_image, text, scale, same)
        + info_nce(image, refined_text, scale, same)
    )
