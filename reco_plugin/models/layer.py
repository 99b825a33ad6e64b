"""The layer that refines (paper, section 3.3), one per modality.

One pre-norm self-attention layer over ``[query, null, neighbour 1 .. K]``: random start, attention from content alone.
Only the query's row is read, so only its row is computed: identical to ``nn.TransformerEncoderLayer``'s, at about a
quarter of the work.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError


@dataclass(frozen=True)
class FusionConfig:
    """Shape of the layer. The paper specifies no heads, width, norms or null slot."""

    dimension: int  # D
    heads: int = 8
    hidden: int = 0  # width of the MLP; 4 D when 0
    dropout: float = 0.1  # on the attention output and the MLP, in training

    def __post_init__(self) -> None:
        if self.dimension % self.heads:
            raise ConfigError(f"dimension {self.dimension} is not divisible by {self.heads} heads: give other --heads")


class FusionLayer(nn.Module):
    """Query (B, D), neighbours (B, K, D), similarity (B, K), trust (B, K) -> refined (B, D), weights (B, K).

    Trust 0 marks a neighbour that is absent; without neighbours the query is returned unchanged. Parameters are named
    as in ``nn.TransformerEncoderLayer``.
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
        refined = torch.where(present.any(1, keepdim=True), F.normalize(x, dim=-1), query)  # bit for bit where alone
        return refined, attention[:, :, 2:].mean(1)

    def tokens(self, query: Tensor, neighbours: Tensor) -> Tensor:
        """(B, 2 + K, D): the query, the null slot, the neighbours, each with its role."""
        null = self.null.expand(query.shape[0], 1, -1)
        return torch.cat([(query + self.role[0]).unsqueeze(1), null, neighbours + self.role[1]], dim=1)

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
