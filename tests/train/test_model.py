"""The fusion layer equals torch's own encoder layer, and keeps its promises about absent and distrusted neighbours."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reco_plugin.errors import ConfigError
from reco_plugin.gate import fuse_training_free
from reco_plugin.train.model import FusionConfig, FusionLayer, TrainingFree, build_fusion

B, K, D, HEADS = 5, 4, 32, 4
TRAINED = ["paper", "reco"]


def layer_of(fuser: str, seed: int = 0, noise: float = 0.05, **options: Any) -> FusionLayer:
    """A layer whose every weight differs from its start, so that none can be left out unnoticed."""
    torch.manual_seed(seed)
    layer = FusionLayer(FusionConfig(fuser, D, heads=HEADS, hidden=48, **options))  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    return layer.eval()


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
        self.names |= {name: name for name in ("role", "null", "sharpness")}
        self.encoder.load_state_dict({renamed.get(name, name): value for name, value in weights.items()})
        self.role = nn.Parameter(layer.role.detach().clone())
        self.null = nn.Parameter(layer.null.detach().clone())
        self.sharpness = nn.Parameter(layer.sharpness.detach().clone())
        self.config = layer.config

    def forward(self, query: Tensor, neighbours: Tensor, similarity: Tensor, trust: Tensor) -> Tensor:
        null = self.null.expand(len(query), 1, D)
        tokens = torch.cat([query[:, None] + self.role[0], null, neighbours + self.role[1]], 1)
        absent = F.pad(trust == 0, (2, 0), value=False)
        if self.config.fuser == "paper":
            rows = self.encoder(tokens, src_key_padding_mask=absent)
        else:
            near = self.sharpness[None, :, None] * (similarity[:, None] - self.config.centre)  # (B, heads, K)
            bias = F.pad(near, (2, 0)).masked_fill(absent[:, None], -math.inf)[:, :, None]
            mask = bias.expand(-1, -1, tokens.shape[1], -1).reshape(-1, tokens.shape[1], tokens.shape[1])
            rows = self.encoder(tokens, src_mask=mask)
        return F.normalize(rows[:, 0], dim=-1)


@pytest.mark.parametrize("fuser", TRAINED)
def test_equals_row_0_of_the_full_encoder_layer_in_outputs_and_gradients(fuser: str) -> None:
    layer = layer_of(fuser)
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
    for name in ("query", "neighbours", *(["similarity"] if fuser == "reco" else [])):
        fast, slow = leaves[0][name].grad, leaves[1][name].grad
        assert fast is not None and slow is not None and slow.abs().max() > 1e-4, name
        torch.testing.assert_close(fast, slow, atol=1e-5, rtol=0, msg=name)
    full = dict(twin.named_parameters())
    for name, parameter in layer.named_parameters():
        other = full[twin.names[name]]
        if fuser == "paper" and name == "sharpness":
            assert parameter.grad is None and other.grad is None
            continue
        assert other.grad is not None and parameter.grad is not None and other.grad.abs().max() > 1e-6, name
        torch.testing.assert_close(parameter.grad, other.grad, atol=1e-5, rtol=0, msg=name)


def test_the_paper_layer_does_not_look_at_similarity_and_trust() -> None:
    layer, given = layer_of("paper"), inputs()
    expected, _ = layer(**given)
    halved = given | {"similarity": torch.rand(B, K), "trust": given["trust"] * 0.3}
    assert torch.equal(layer(**halved)[0], expected)


@pytest.mark.parametrize("fuser", [*TRAINED, "training-free"])
def test_absent_neighbours_equal_a_shorter_sequence(fuser: str) -> None:
    module = layer_of(fuser) if fuser in TRAINED else TrainingFree("image")
    given = inputs()
    given["trust"] = torch.tensor([1.0, 0.7, 0.0, 0.0]).expand(B, K)
    given["neighbours"][:, 2:] = 1e3  # what stands in a padded place must not matter
    given["similarity"][:, 2:] = -7.0
    refined, weights = module(**given)
    short = {name: value if name == "query" else value[:, :2] for name, value in given.items()}
    expected, expected_weights = module(**short)
    torch.testing.assert_close(refined, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(weights[:, :2], expected_weights, atol=1e-6, rtol=0)
    assert (weights[:, 2:] == 0).all()


@pytest.mark.parametrize("fuser", [*TRAINED, "training-free"])
def test_without_neighbours_the_query_comes_back_bit_by_bit(fuser: str) -> None:
    module = layer_of(fuser) if fuser in TRAINED else TrainingFree("text")
    given = inputs()
    given["trust"][:3] = 0.0
    refined, weights = module(**given)
    assert torch.equal(refined[:3], given["query"][:3]) and (weights[:3] == 0).all()
    assert not torch.isclose(refined[3:], given["query"][3:]).all(1).any()
    given["query"].requires_grad_()
    module(**given)[0].sum().backward()
    assert given["query"].grad is not None and given["query"].grad.isfinite().all()


def test_trust_scales_towards_the_query_without_jumps() -> None:
    torch.manual_seed(3)
    layer = FusionLayer(FusionConfig("reco", D, heads=HEADS)).eval()
    query = F.normalize(torch.randn(B, D) - 0.0, dim=-1)
    query = F.normalize(query - query.mean(1, keepdim=True), dim=-1)  # so that its layer norm is itself
    given = inputs() | {"query": query}
    levels = np.linspace(1e-6, 1.0, 101)
    path = torch.stack([layer(**given | {"trust": torch.full((B, K), float(t))})[0] for t in levels])
    cosine = (path * query).sum(-1)  # (T, B)
    assert (cosine.diff(dim=0) < 1e-6).all()  # the more trust, the farther from the query
    assert (1 - cosine[0]).max() < 1e-5 and cosine[-1].max() < 0.9
    assert path.diff(dim=0).norm(dim=-1).max() < 0.1


@pytest.mark.parametrize("fuser", TRAINED)
def test_no_jump_between_two_levels_of_trust_after_training_either(fuser: str) -> None:
    layer, given = layer_of(fuser, noise=0.1), inputs()
    path = torch.stack([layer(**given | {"trust": torch.full((B, K), t)})[0] for t in np.linspace(0.01, 1, 100)])
    assert path.diff(dim=0).norm(dim=-1).max() < 0.1


def test_the_mlp_adds_as_much_as_the_best_neighbour_is_trusted() -> None:
    layer, given = layer_of("reco"), inputs()
    with torch.no_grad():
        layer.out_proj.weight.zero_()  # the attention adds nothing, so that the MLP stands alone
        layer.out_proj.bias.zero_()
        trust = torch.rand(B, K)
        refined, _ = layer(**given | {"trust": trust})
        x = given["query"] + layer.role[0]
        mlp = layer.linear2(F.gelu(layer.linear1(layer.norm2(x))))
    expected = F.normalize(x + trust.max(1, keepdim=True).values * mlp, dim=-1)
    torch.testing.assert_close(refined, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("fuser", [*TRAINED, "training-free"])
def test_weights_are_shares_of_what_is_present(fuser: str) -> None:
    module = layer_of(fuser) if fuser in TRAINED else TrainingFree("text")
    given = inputs()
    refined, weights = module(**given)
    assert refined.shape == (B, D) and weights.shape == (B, K)
    torch.testing.assert_close(refined.norm(dim=-1), torch.ones(B), atol=1e-6, rtol=0)
    assert (weights[given["trust"] == 0] == 0).all() and (weights[given["trust"] > 0] > 0).all()
    assert (weights.sum(1) <= 1 + 1e-6).all()


@pytest.mark.parametrize("fuser", [*TRAINED, "training-free"])
def test_the_order_of_neighbours_does_not_matter(fuser: str) -> None:
    module = layer_of(fuser) if fuser in TRAINED else TrainingFree("image")
    given = inputs()
    given["trust"] = given["trust"] * torch.rand(B, K)
    order = torch.tensor([2, 0, 3, 1])
    refined, weights = module(**given)
    turned = {name: value if name == "query" else value[:, order] for name, value in given.items()}
    other, other_weights = module(**turned)
    torch.testing.assert_close(other, refined, atol=1e-6, rtol=0)
    torch.testing.assert_close(other_weights, weights[:, order], atol=1e-6, rtol=0)


@pytest.mark.parametrize("modality", ["image", "text"])
def test_training_free_equals_the_formula_of_the_gate(modality: Any) -> None:
    given = inputs()
    given["trust"] = given["trust"] * torch.rand(B, K)
    given["trust"][4] = 0.0
    refined, weights = TrainingFree(modality)(**given)
    arrays = {name: value.numpy() for name, value in given.items()}
    expected, shares = fuse_training_free(modality, arrays["query"], arrays["neighbours"], arrays["trust"])
    np.testing.assert_allclose(refined.numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(weights.numpy(), shares, atol=1e-6)


@pytest.mark.parametrize(("fuser", "nearer"), [("reco", True), ("paper", False)])
def test_only_ours_starts_by_adding_what_was_retrieved(fuser: Any, nearer: bool) -> None:
    torch.manual_seed(0)
    layer = build_fusion(FusionConfig(fuser, 64), "image").eval()
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
        build_fusion(FusionConfig("reco", 30), "image")
    build_fusion(FusionConfig("training-free", 30), "image")
