"""The paper's layer equals torch's own encoder layer, the step equals numpy's; fusions keep the same promises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reco_plugin.errors import ConfigError
from reco_plugin.train.model import FusionConfig, FusionLayer, build_fusion

B, K, D, HEADS = 5, 4, 32, 4


def paper(seed: int = 0, noise: float = 0.05, **options: Any) -> FusionLayer:
    """A layer whose every weight differs from its start, so that none can be left out unnoticed."""
    torch.manual_seed(seed)
    layer = FusionLayer(FusionConfig("paper", D, heads=HEADS, hidden=48, **options))
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    return layer.eval()


def mean(**options: Any) -> nn.Module:
    return build_fusion(FusionConfig("mean", D, **options)).eval()


FUSIONS: dict[str, Callable[[], nn.Module]] = {
    "paper": paper,
    "mean": mean,
    "mean, heavy and even": lambda: mean(weight=4.0, sharpness=0.0),
}
every_fusion = pytest.mark.parametrize("make", FUSIONS.values(), ids=FUSIONS)


def unit(*shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape), dim=-1)


def inputs(seed: int = 1) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    trust = torch.ones(B, K)
    trust[1, 2:] = 0.0
    trust[2, 0] = 0.0
    return {
        "query": unit(B, D),
        "neighbours": unit(B, K, D),
        "similarity": torch.rand(B, K),
        "trust": trust,
    }


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


def test_equals_row_0_of_the_full_encoder_layer_in_outputs_and_gradients() -> None:
    layer = paper()
    twin = FullLayer(layer)
    probe = torch.randn(B, D)
    leaves: list[dict[str, Tensor]] = []
    results: list[Tensor] = []
    for module in (layer, twin):
        given = {name: value.clone().requires_grad_(name != "trust") for name, value in inputs().items()}
        result = module(**given)
        refined = result[0] if isinstance(result, tuple) else result
        (refined * probe).sum().backward()
        leaves.append(given)
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


def test_the_paper_layer_does_not_look_at_similarity_and_trust() -> None:
    layer, given = paper(), inputs()
    expected, _ = layer(**given)
    halved = given | {"similarity": torch.rand(B, K), "trust": given["trust"] * 0.3}
    assert torch.equal(layer(**halved)[0], expected)


# --- what every fusion promises ----------------------------------------------------------------------------------


@every_fusion
def test_absent_neighbours_equal_a_shorter_sequence(make: Callable[[], nn.Module]) -> None:
    module, given = make(), inputs()
    given["trust"] = torch.tensor([1.0, 0.7, 0.0, 0.0]).expand(B, K)
    given["neighbours"][:, 2:] = 1e3  # what stands in a padded place must not matter
    given["similarity"][:, 2:] = -7.0
    refined, weights = module(**given)
    short = {name: value if name == "query" else value[:, :2] for name, value in given.items()}
    expected, expected_weights = module(**short)
    torch.testing.assert_close(refined, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(weights[:, :2], expected_weights, atol=1e-6, rtol=0)
    assert (weights[:, 2:] == 0).all()


@every_fusion
def test_without_neighbours_the_query_comes_back_bit_by_bit(make: Callable[[], nn.Module]) -> None:
    module, given = make(), inputs()
    given["trust"][:3] = 0.0
    refined, weights = module(**given)
    assert torch.equal(refined[:3], given["query"][:3]) and (weights[:3] == 0).all()
    assert not torch.isclose(refined[3:], given["query"][3:]).all(1).any()


@every_fusion
def test_gradients_are_finite_where_some_queries_have_no_neighbour(make: Callable[[], nn.Module]) -> None:
    module, given = make(), inputs()
    given["trust"][:3] = 0.0
    given["query"][4] = given["neighbours"][4] = F.normalize(torch.ones(D), dim=0)  # nothing to move
    for name in ("query", "neighbours"):
        given[name].requires_grad_()
    refined, weights = module(**given)
    (refined.sum() + weights.sum()).backward()
    leaves = [given["query"], given["neighbours"], *module.parameters()]
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves)
    assert given["neighbours"].grad is not None and given["neighbours"].grad[3].abs().max() > 1e-4


LEVELS = np.linspace(1e-3, 1, 101)


@every_fusion
def test_nothing_jumps_between_two_levels_of_trust(make: Callable[[], nn.Module]) -> None:
    module, given = make(), inputs()
    path = torch.stack([module(**given | {"trust": torch.full((B, K), t)})[0] for t in LEVELS.tolist()])
    assert path.diff(dim=0).norm(dim=-1).max() < 0.1


@pytest.mark.parametrize("name", [name for name in FUSIONS if name != "paper"])
def test_the_more_trust_the_farther_from_the_query(name: str) -> None:
    module, given = FUSIONS[name](), inputs()
    path = torch.stack([module(**given | {"trust": torch.full((B, K), t)})[0] for t in LEVELS.tolist()])
    cosine = (path * given["query"]).sum(-1)  # (T, B)
    assert (cosine.diff(dim=0) < 1e-6).all()
    assert (1 - cosine[0]).max() < 1e-5
    assert cosine[-1].max() < 0.96


@every_fusion
def test_weights_are_shares_of_what_is_present(make: Callable[[], nn.Module]) -> None:
    module, given = make(), inputs()
    refined, weights = module(**given)
    assert refined.shape == (B, D) and weights.shape == (B, K)
    torch.testing.assert_close(refined.norm(dim=-1), torch.ones(B), atol=1e-6, rtol=0)
    assert (weights[given["trust"] == 0] == 0).all() and (weights[given["trust"] > 0] > 0).all()
    assert (weights.sum(1) <= 1 + 1e-6).all()


@every_fusion
def test_the_order_of_neighbours_does_not_matter(make: Callable[[], nn.Module]) -> None:
    module, given = make(), inputs()
    given["trust"] = given["trust"] * torch.rand(B, K)
    order = torch.tensor([2, 0, 3, 1])
    refined, weights = module(**given)
    turned = {name: value if name == "query" else value[:, order] for name, value in given.items()}
    other, other_weights = module(**turned)
    torch.testing.assert_close(other, refined, atol=1e-6, rtol=0)
    torch.testing.assert_close(other_weights, weights[:, order], atol=1e-6, rtol=0)


# --- by hand ---------------------------------------------------------------------------------------------------------


def row(*values: float) -> Tensor:
    return torch.tensor([values])


def test_a_mean_by_hand() -> None:
    """Half trusted, two neighbours alike and a padded one: a mean of half the query's length is added."""
    refined, weights = mean()(
        row(1.0, 0, 0), torch.tensor([[[0.0, 1, 0], [0, 1, 0], [0, 0, 1]]]), row(0.9, 0.9, 0.0), row(0.5, 0.5, 0.0)
    )
    torch.testing.assert_close(refined, F.normalize(row(1.0, 0.5, 0), dim=-1))
    torch.testing.assert_close(weights, row(1 / 6, 1 / 6, 0.0))


def test_the_nearer_neighbour_has_the_larger_share() -> None:
    given = (row(1.0, 0, 0), torch.tensor([[[0.0, 1, 0], [0, 0, 1]]]), row(0.9, 0.8), row(1.0, 1.0))
    _, weights = mean(sharpness=10.0)(*given)
    assert (weights[0, 0] / weights[0, 1]).item() == pytest.approx(np.e, rel=1e-5)


@pytest.mark.parametrize(("fuser", "nearer"), [("mean", True), ("paper", False)])
def test_only_the_mean_starts_by_adding_what_was_retrieved(fuser: Any, nearer: bool) -> None:
    torch.manual_seed(0)
    layer = build_fusion(FusionConfig(fuser, 64)).eval()
    topic = F.normalize(torch.randn(200, 1, 64), dim=-1)
    neighbours = F.normalize(topic + 0.05 * torch.randn(200, 5, 64), dim=-1)
    query, similarity = F.normalize(torch.randn(200, 64), dim=-1), torch.full((200, 5), 0.6)
    mean = F.normalize(neighbours.mean(1), dim=-1)
    refined, _ = layer(query, neighbours, similarity, torch.ones(200, 5))
    gain = (refined * mean).sum(-1) - (query * mean).sum(-1)
    assert bool((gain > 0.2).all()) is nearer
    assert nearer or abs(gain.mean()) < 0.1


def test_a_dimension_that_the_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"30 is not divisible by 8 heads"):
        build_fusion(FusionConfig("paper", 30))
    build_fusion(FusionConfig("mean", 30))
