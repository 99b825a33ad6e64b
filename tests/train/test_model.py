"""The paper's layer equals torch's own encoder layer; ours compares in its metric; all keep the same promises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reco_plugin.errors import ConfigError
from reco_plugin.gate import fuse_training_free
from reco_plugin.train.model import FusionConfig, FusionLayer, MetricFusion, TrainingFree, build_fusion

B, K, D, HEADS = 5, 4, 32, 4


def paper(seed: int = 0, noise: float = 0.05, **options: Any) -> FusionLayer:
    """A layer whose every weight differs from its start, so that none can be left out unnoticed."""
    torch.manual_seed(seed)
    layer = FusionLayer(FusionConfig("paper", D, heads=HEADS, hidden=48, **options))
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    return layer.eval()


def fitted(seed: int = 0, slack: bool = True, **options: Any) -> MetricFusion:
    """Ours with a random metric: symmetric, largest singular value 1, nothing along the last axis but itself."""
    torch.manual_seed(seed)
    fusion = MetricFusion(FusionConfig("reco", D, **options))
    directions = torch.linalg.qr(torch.randn(D - 1, D - 1)).Q
    scale = torch.linspace(0.05, 1, D - 1)
    with torch.no_grad():
        fusion.metric[:-1, :-1] = (directions * scale) @ directions.T
        if slack:
            fusion.slack[-1] = 1.0
    return fusion.eval()


FUSIONS: dict[str, Callable[[], nn.Module]] = {
    "paper": paper,
    "reco": fitted,
    "reco, not fitted": lambda: build_fusion(FusionConfig("reco", D), "text").eval(),
    "training-free, image": lambda: TrainingFree("image"),
    "training-free, text": lambda: TrainingFree("text"),
}
every_fusion = pytest.mark.parametrize("make", FUSIONS.values(), ids=FUSIONS)


def unit(*shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape), dim=-1)


def inputs(seed: int = 1) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    trust = torch.ones(B, K)
    trust[1, 2:] = 0.0
    trust[2, 0] = 0.0
    query = unit(B, D)
    query[:, -1].abs_()  # texts lie on one side of the slack
    return {
        "query": query,
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
    given["query"][4] = given["neighbours"][4] = F.normalize(torch.ones(D), dim=0)  # nothing to move, nothing missing
    for name in ("query", "neighbours"):
        given[name].requires_grad_()
    refined, weights = module(**given)
    (refined.sum() + weights.sum()).backward()
    leaves = [given["query"], given["neighbours"], *module.parameters()]
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves)
    assert given["neighbours"].grad is not None and given["neighbours"].grad[3].abs().max() > 1e-4


LEVELS = np.linspace(1e-3, 1, 101) ** 2  # even steps of the root: slack grows with the root of what is missing


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


# --- ours --------------------------------------------------------------------------------------------------------


def row(*values: float) -> Tensor:
    return torch.tensor([values])


def test_the_start_by_hand() -> None:
    """Half trusted, two neighbours alike and a padded one: half of the query and half of what was found."""
    fusion = build_fusion(FusionConfig("reco", 3, rest=0.25), "text")
    query, neighbours = row(1.0, 0, 0), torch.tensor([[[0.0, 1, 0], [0, 1, 0], [0, 0, 1]]])
    refined, weights = fusion(query, neighbours, row(0.9, 0.8, 0.0), row(0.5, 0.5, 0.0))
    x = 0.5 * row(1.0, 0, 0) + 0.5 * row(0.25, 1, 0) / 1.25
    torch.testing.assert_close(refined, x / x.norm())
    torch.testing.assert_close(weights, row(0.25, 0.25, 0.0))


def test_a_metric_and_a_slack_by_hand() -> None:
    """Fully trusted; the second axis counts half, the third is the slack."""
    fusion = MetricFusion(FusionConfig("reco", 3, rest=0.0))
    with torch.no_grad():
        fusion.metric.copy_(torch.diag(torch.tensor([1.0, 0.5, 1.0])))
        fusion.slack.copy_(torch.tensor([0.0, 0.0, 1.0]))
    refined, weights = fusion(row(1.0, 0, 0), torch.tensor([[[0.6, 0.8, 0]]]), row(0.9), row(1.0))
    seen = torch.tensor([0.6, 0.4]) / 0.52**0.5  # the neighbour in the metric, of length 1
    told = seen * torch.tensor([1.0, 0.5])
    expected = torch.tensor([[*told.tolist(), (1 - told.square().sum().item()) ** 0.5]])
    torch.testing.assert_close(refined, expected)
    torch.testing.assert_close(weights, row(1.0))


@pytest.mark.parametrize("slack", [True, False])
def test_plain_images_are_ranked_by_the_cosine_in_the_metric(slack: bool) -> None:
    """Many texts compete for plain images: with the slack they are ranked as in the metric, without it they are not."""
    texts, images = 200, 300
    fusion = fitted(slack=slack, rest=0.0, agreement=0.0)
    torch.manual_seed(5)
    flat = torch.ones(D)
    flat[-1] = 0  # images do not use the direction of the slack
    gallery = F.normalize(torch.randn(images, D) * flat, dim=-1)
    found, trust = F.normalize(torch.randn(texts, K, D) * flat, dim=-1), torch.ones(texts, K)
    with torch.no_grad():
        refined, weights = fusion(unit(texts, D), found, torch.rand(texts, K), trust)
        pooled = F.normalize(found.mean(1) @ fusion.metric, dim=-1)
        mapped = gallery @ fusion.metric
        cosine = F.normalize(mapped, dim=-1) @ pooled.T  # (images, texts)
        scores = gallery @ refined.T
    torch.testing.assert_close(weights, torch.full((texts, K), 1 / K))
    lengths = (pooled @ fusion.metric).norm(dim=-1)
    assert lengths.max() / lengths.min() > 1.3, "texts of one length would need no slack"
    if slack:
        torch.testing.assert_close(scores, mapped.norm(dim=-1, keepdim=True) * cosine, atol=1e-6, rtol=0)
        assert torch.equal(scores.argmax(1), cosine.argmax(1))
    else:
        assert (scores.argmax(1) != cosine.argmax(1)).float().mean() > 0.1


def test_vectors_of_length_1_come_out_whatever_lies_along_the_slack() -> None:
    """Queries are texts, which may use the direction that images do not."""
    fusion, given = fitted(), inputs()
    along = torch.tensor([2.0, -2.0, 0.0, 9.0, -9.0])
    given["query"] = F.normalize(given["query"] + along[:, None] * fusion.slack, dim=-1)
    for level in (0.01, 0.5, 1.0):
        refined, _ = fusion(**given | {"trust": torch.full((B, K), level)})
        torch.testing.assert_close(refined.norm(dim=-1), torch.ones(B), atol=1e-6, rtol=0)


def test_an_image_unlike_the_others_has_less_than_its_share() -> None:
    torch.manual_seed(2)
    thing = unit(B, 1, D)
    found = F.normalize(thing + 0.1 * torch.randn(B, 5, D), dim=-1)
    found[:, 2] = unit(B, D)
    trust = torch.full((B, 5), 0.8)
    given = (unit(B, D), found, torch.rand(B, 5), trust)
    fusion = fitted()
    _, weights = fusion(*given)
    share = weights / weights.sum(1, keepdim=True)
    assert (share[:, 2] < 0.1).all() and (share[:, [0, 1, 3, 4]] > 0.15).all()
    torch.testing.assert_close(weights.sum(1), torch.full((B,), 0.8))
    _, alike = fitted(agreement=0.0)(*given)
    torch.testing.assert_close(alike, torch.full((B, 5), 0.16))


def test_of_two_images_neither_is_the_outlier() -> None:
    given = inputs()
    given["trust"] = torch.tensor([0.6, 0.6, 0.0, 0.0]).expand(B, K)
    _, weights = fitted()(**given)
    torch.testing.assert_close(weights[:, :2], torch.full((B, 2), 0.3))


def test_the_similarity_speaks_through_trust_alone() -> None:
    given = inputs()
    assert torch.equal(fitted()(**given)[0], fitted()(**given | {"similarity": torch.rand(B, K)})[0])


def test_the_image_side_of_ours_is_training_free() -> None:
    given = inputs()
    ours = build_fusion(FusionConfig("reco", D), "image")
    assert not list(ours.parameters())
    for mine, free in zip(ours(**given), TrainingFree("image")(**given), strict=True):
        assert torch.equal(mine, free)


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
    layer = build_fusion(FusionConfig(fuser, 64), "text").eval()
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
        build_fusion(FusionConfig("paper", 30), "image")
    for fuser in ("reco", "training-free"):
        build_fusion(FusionConfig(fuser, 30), "text")
