"""The paper's layer equals torch's own encoder layer, and absent neighbours change nothing."""

from __future__ import annotations

import pytest

from reco_plugin.errors import ConfigError

pytest.importorskip("torch")
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reco_plugin.export.train_layer import FusionConfig, FusionLayer

pytestmark = pytest.mark.torch

B, K, D, HEADS = 5, 4, 32, 4


@pytest.fixture
def layer() -> FusionLayer:
    """A layer whose every weight differs from its start, so that none can be left out unnoticed."""
    torch.manual_seed(0)
    made = FusionLayer(FusionConfig(D, heads=HEADS, hidden=48))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return made.eval()


def unit(*shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape), dim=-1)


@pytest.fixture
def given() -> dict[str, Tensor]:
    torch.manual_seed(1)
    trust = torch.ones(B, K)
    trust[1, 2:] = 0.0
    trust[2, 0] = 0.0
    return {"query": unit(B, D), "neighbours": unit(B, K, D), "similarity": torch.rand(B, K), "trust": trust}


class FullLayer(nn.Module):
    """The slow twin: every row of ``nn.TransformerEncoderLayer`` is computed, the first one is read."""

    def __init__(self, layer: FusionLayer) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(
            D, HEADS, 48, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        weights = {name: value for name, value in layer.state_dict().items() if "." in name}
        renamed = {"in_proj.weight": "self_attn.in_proj_weight", "in_proj.bias": "self_attn.in_proj_bias"}
        renamed |= {f"out_proj.{kind}": f"self_attn.out_proj.{kind}" for kind in ("weight", "bias")}
        self.names = {name: f"encoder.{renamed.get(name, name)}" for name in weights}
        self.names |= {name: name for name in ("role", "null")}
        self.encoder.load_state_dict({renamed.get(name, name): value for name, value in weights.items()})
        self.role = nn.Parameter(layer.role.detach().clone())
        self.null = nn.Parameter(layer.null.detach().clone())

    def forward(self, query: Tensor, neighbours: Tensor, similarity: Tensor, trust: Tensor) -> Tensor:
        null = self.null.expand(len(query), 1, D)
        tokens = torch.cat([query[:, None] + self.role[0], null, neighbours + self.role[1]], 1)
        rows = self.encoder(tokens, src_key_padding_mask=F.pad(trust == 0, (2, 0), value=False))
        return F.normalize(rows[:, 0], dim=-1)


def test_equals_row_0_of_the_full_encoder_layer_in_outputs_and_gradients(
    layer: FusionLayer, given: dict[str, Tensor]
) -> None:
    twin, probe = FullLayer(layer), torch.randn(B, D)
    leaves: list[dict[str, Tensor]] = []
    results: list[Tensor] = []
    for module in (layer, twin):
        leaf = {name: value.clone().requires_grad_(name != "trust") for name, value in given.items()}
        result = module(**leaf)
        refined = result[0] if isinstance(result, tuple) else result
        (refined * probe).sum().backward()
        leaves.append(leaf)
        results.append(refined.detach())
    torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=0)
    for name in ("query", "neighbours"):
        fast, slow = leaves[0][name].grad, leaves[1][name].grad
        assert fast is not None and slow is not None and slow.abs().max() > 1e-4, name
        torch.testing.assert_close(fast, slow, atol=1e-5, rtol=0, msg=name)
    full = dict(twin.named_parameters())
    for name, parameter in layer.named_parameters():
        other = full[twin.names[name]]
        assert other.grad is not None and parameter.grad is not None and other.grad.abs().max() > 1e-6, name
        torch.testing.assert_close(parameter.grad, other.grad, atol=1e-5, rtol=0, msg=name)


def test_absent_neighbours_equal_a_shorter_sequence(layer: FusionLayer, given: dict[str, Tensor]) -> None:
    given["trust"] = torch.tensor([1.0, 0.7, 0.0, 0.0]).expand(B, K)
    given["neighbours"][:, 2:] = 1e3  # what stands in a padded place must not matter
    refined, weights = layer(**given)
    short = {name: value if name == "query" else value[:, :2] for name, value in given.items()}
    expected, expected_weights = layer(**short)
    torch.testing.assert_close(refined, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(weights[:, :2], expected_weights, atol=1e-6, rtol=0)
    assert (weights[:, 2:] == 0).all() and (weights.sum(1) <= 1 + 1e-6).all()
    torch.testing.assert_close(refined.norm(dim=-1), torch.ones(B), atol=1e-6, rtol=0)


def test_without_neighbours_the_query_comes_back_bit_by_bit_and_gradients_stay_finite(
    layer: FusionLayer, given: dict[str, Tensor]
) -> None:
    given["trust"][:3] = 0.0
    for name in ("query", "neighbours"):
        given[name].requires_grad_()
    refined, weights = layer(**given)
    assert torch.equal(refined[:3], given["query"][:3]) and (weights[:3] == 0).all()
    assert not torch.isclose(refined[3:], given["query"][3:]).all(1).any()
    (refined.sum() + weights.sum()).backward()
    leaves = [given["query"], given["neighbours"], *layer.parameters()]
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves)


def test_the_order_of_neighbours_does_not_matter(layer: FusionLayer, given: dict[str, Tensor]) -> None:
    order = torch.tensor([2, 0, 3, 1])
    refined, weights = layer(**given)
    other, other_weights = layer(**{n: value if n == "query" else value[:, order] for n, value in given.items()})
    torch.testing.assert_close(other, refined, atol=1e-6, rtol=0)
    torch.testing.assert_close(other_weights, weights[:, order], atol=1e-6, rtol=0)


def test_a_dimension_that_the_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match="30 is not divisible by 8 heads"):
        FusionConfig(30)
