"""The fusion transformer (paper, section 3.3), in one file.

One pre-norm self-attention layer over ``[query, null, neighbour 1 .. K]``; only the query's row is read, so only
its row is computed: identical to ``nn.TransformerEncoderLayer``'s, at about a quarter of the work.

Two of it, one per modality, are trained. Which is chosen by name:

``paper``
    The layer as the paper describes it: random start, attention from content alone.
``reco``
    Ours: the value and output maps start as the identity, so that an untrained layer already adds what was
    retrieved; the search similarity enters the attention logits; trust scales what each neighbour may add.
``training-free``
    No weights: :func:`reco_plugin.gate.fuse_training_free` as a graph.

Every graph has one signature: query (B,D), neighbours (B,K,D), similarity (B,K), trust (B,K) -> refined (B,D),
weights (B,K). Trust 0 marks a neighbour that is absent; with no neighbour at all the query comes back as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..gate import STRENGTH
from ..types import Modality

FuserKind = Literal["paper", "reco", "training-free"]


@dataclass(frozen=True)
class FusionConfig:
    """Shape and start of the layer. Heads, width, norms and null slot are our choice: the paper names none.

    Attributes:
        fuser: which of the three.
        dimension: D.
        heads: attention heads.
        hidden: width of the MLP; 4 D when 0.
        dropout: on attention output and MLP, in training.
        sharpness: start of the learnt weight of (similarity - centre) in the attention logits.
        centre: similarity at which a neighbour weighs as much as the query itself.
        strength: start of the output map, as a multiple of the identity.
    """

    fuser: FuserKind
    dimension: int
    heads: int = 8
    hidden: int = 0
    dropout: float = 0.1
    sharpness: float = 20.0
    centre: float = 0.4
    strength: float = 1.0

    def __post_init__(self) -> None:
        if self.fuser != "training-free" and self.dimension % self.heads:
            raise ConfigError(f"dimension {self.dimension} is not divisible by {self.heads} heads: give other --heads")


class FusionLayer(nn.Module):
    """The layer of ``paper`` and ``reco``; parameters are named as in ``nn.TransformerEncoderLayer``."""

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
        self.sharpness = nn.Parameter(torch.full((config.heads,), float(config.sharpness)))
        self.dropout = nn.Dropout(config.dropout)
        self._paper_start()
        if config.fuser == "reco":
            self._identity_start()

    def _paper_start(self) -> None:
        nn.init.xavier_uniform_(self.in_proj.weight)
        nn.init.zeros_(self.in_proj.bias)
        nn.init.zeros_(self.out_proj.bias)
        nn.init.normal_(self.role, std=0.02)
        nn.init.normal_(self.null, std=0.02)

    def _identity_start(self) -> None:
        """Start as: query + strength * (attention-weighted neighbours)."""
        d = self.config.dimension
        with torch.no_grad():
            self.norm1.weight.fill_(1 / math.sqrt(d))  # a unit vector stays one, so that V = 1 copies it
            self.in_proj.weight[: 2 * d].mul_(0.1)  # nearly uniform attention before the similarity speaks
            self.in_proj.weight[2 * d :].copy_(torch.eye(d))
            self.out_proj.weight.copy_(self.config.strength * torch.eye(d))
            self.linear2.weight.zero_()
            self.linear2.bias.zero_()
            self.role.zero_()
            self.null.zero_()

    def forward(self, query: Tensor, neighbours: Tensor, similarity: Tensor, trust: Tensor) -> tuple[Tensor, Tensor]:
        """Refine (B, D) by (B, K, D); returns (B, D) unit-norm and the neighbours' shares (B, K)."""
        present = trust > 0
        share = trust if self.config.fuser == "reco" else present.to(trust.dtype)
        tokens = self.tokens(query, neighbours)  # (B, 2 + K, D)
        q, k, v = self._heads(self.norm1(tokens))
        logits = (q @ k.transpose(-1, -2)).squeeze(2) / math.sqrt(q.shape[-1])  # (B, heads, 2 + K)
        logits = logits + self.bias(similarity, present)
        most = share.amax(1, keepdim=True)  # self, null and the MLP speak no louder than the best neighbour
        attention = logits.softmax(-1) * torch.cat([most, most, share], 1)[:, None]
        gathered = (attention.unsqueeze(2) @ v).flatten(1)  # (B, heads, 1, D / heads) -> (B, D)
        x = tokens[:, 0] + self.dropout(self.out_proj(gathered))
        mlp = self.linear2(self.dropout(F.gelu(self.linear1(self.norm2(x)))))
        x = x + self.dropout(mlp) * most
        return _keep_if_alone(F.normalize(x, dim=-1), query, present), attention[:, :, 2:].mean(1)

    def tokens(self, query: Tensor, neighbours: Tensor) -> Tensor:
        """(B, 2 + K, D): the query, the null slot, the neighbours, each with its role."""
        null = self.null.expand(query.shape[0], 1, -1)
        return torch.cat([(query + self.role[0]).unsqueeze(1), null, neighbours + self.role[1]], dim=1)

    def bias(self, similarity: Tensor, present: Tensor) -> Tensor:
        """(B, heads, 2 + K) added to the attention logits; minus infinity where a neighbour is absent."""
        near = torch.zeros_like(similarity).unsqueeze(1).expand(-1, self.config.heads, -1)
        if self.config.fuser == "reco":
            near = self.sharpness[:, None] * (similarity - self.config.centre).unsqueeze(1)
        return F.pad(near.masked_fill(~present.unsqueeze(1), -math.inf), (2, 0), value=0.0)

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query projection of the first token alone (B, heads, 1, d); keys and values of all (B, heads, 2+K, d)."""
        d = self.config.dimension
        weight, bias = self.in_proj.weight, self.in_proj.bias
        q = F.linear(x[:, :1], weight[:d], bias[:d])
        k, v = F.linear(x, weight[d:], bias[d:]).chunk(2, dim=-1)
        return self._split(q), self._split(k), self._split(v)

    def _split(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, heads, N, D / heads)."""
        return x.reshape(x.shape[0], x.shape[1], self.config.heads, -1).transpose(1, 2)


class TrainingFree(nn.Module):
    """:func:`reco_plugin.gate.fuse_training_free` as a graph."""

    def __init__(self, modality: Modality) -> None:
        super().__init__()
        self.strength = STRENGTH[modality]

    def forward(self, query: Tensor, neighbours: Tensor, similarity: Tensor, trust: Tensor) -> tuple[Tensor, Tensor]:
        """Same shapes as :meth:`FusionLayer.forward`; similarity speaks through trust alone."""
        total = trust.sum(1, keepdim=True).clamp_min(1e-30)
        weights = self.strength * trust.amax(1, keepdim=True) * trust / total  # (B, K)
        refined = F.normalize(query + (weights.unsqueeze(1) @ neighbours).squeeze(1), dim=-1)
        return _keep_if_alone(refined, query, trust > 0), weights


def _keep_if_alone(refined: Tensor, query: Tensor, present: Tensor) -> Tensor:
    """The query itself, bit by bit, where nothing was retrieved."""
    return torch.where(present.any(1, keepdim=True), refined, query)


def build_fusion(config: FusionConfig, modality: Modality) -> nn.Module:
    """One fusion, untrained."""
    if config.fuser == "training-free":
        return TrainingFree(modality)
    return FusionLayer(config)
