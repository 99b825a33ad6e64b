"""A learned attention layer that begins as the closed form: does it beat the closed form? Prints one table.

    python -m benchmarks.attention --data DIRECTORY     ImageNet under OpenAI's ViT-B/32, emoji under the mini CLIP

The layer takes what the closed form takes (similarity, reliability, what the encoder says of each neighbour, how it
fits the others) and changes three things by small networks that begin at zero: the attention over the neighbours, the
values (a residual of low rank) and how far the query moves. It is trained on held-out pairs of the memory itself, with
their siblings visible and hidden, by the gate's own loss; other pairs stop it early. So it may only win where the
closed form leaves something. It sees the memory's pairs, as the gate does, and neither the queries nor the index of the
end.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from reco_plugin.calibration.calibrate import calibrate
from reco_plugin.calibration.corpus import Corpus, measure_corpus
from reco_plugin.calibration.gate import LEAST, RELIABILITY_STEP, STRONGEST, Applied
from reco_plugin.calibration.nearest import nearest_columns
from reco_plugin.calibration.state import Calibration
from reco_plugin.evaluate.intervals import bootstrap
from reco_plugin.types import Modality, Vectors, other

from .markdown import table
from .realclip_gate import load_imagenet

K, ROWS, HELD, BATCH, EPOCHS, PATIENCE, RANK = 10, 1600, 400, 400, 60, 8, 16
VARIANTS = {"attention": (True, False, False), "attention, strength": (True, False, True), "all": (True, True, True)}
Hits = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Trial:
    """A memory and the queries of one modality.

    Attributes:
        name: of the row.
        image, text: (N, D) the memory's pairs.
        modality: of the queries.
        query: (Q, D).
        gallery: (C, D) of the other modality.
        truth, labels: (Q,) and (C,) classes.
        parts: name -> which queries count.
    """

    name: str
    image: Vectors
    text: Vectors
    modality: Modality
    query: Vectors
    gallery: Vectors
    truth: Rows
    labels: Rows
    parts: dict[str, npt.NDArray[np.bool_]]

    def hits(self, refined: Vectors) -> Hits:
        """100 where the nearest of the gallery is of the query's class, else 0; (Q,)."""
        return np.asarray(100.0 * (self.labels[(refined @ self.gallery.T).argmax(axis=1)] == self.truth))


@dataclass(frozen=True)
class Found:
    """What queries found: (B, D), (B, K, D) and three times (B, K)."""

    query: Tensor
    values: Tensor
    similarity: Tensor
    reliability: Tensor
    found: Tensor


class Layer(nn.Module):
    """The closed form with three learned changes, all zero at first."""

    def __init__(self, state: Calibration, applied: Applied, modality: Modality, variant: str) -> None:
        super().__init__()
        values, side = state.values[other(modality)], state.sides[modality]
        dimension, eye = len(values.mean), np.eye(len(values.mean), dtype=np.float32)
        self.attends, self.maps, self.moves = VARIANTS[variant]
        self.mean = torch.from_numpy(values.mean)
        self.precision, self.covariance = (
            torch.from_numpy(m.apply(eye)) for m in (values.precision, values.covariance)
        )
        self.own, self.spread, self.unit, self.applied = float(values.length), side.spread, side.unit, applied
        gate = applied.gate
        self.phi, self.low, self.high = (torch.tensor(x, dtype=torch.float32) for x in (gate.phi, gate.low, gate.high))
        self.sharpness = nn.Parameter(torch.tensor(float(gate.sharpness)))
        self.temperature, self.lost = (
            nn.Parameter(torch.tensor(float(gate.temperature))),
            nn.Parameter(torch.tensor(-2.0)),
        )
        self.attention, self.strength = _from_zero(5), _from_zero(6)
        self.down, self.up = nn.Linear(dimension, RANK, bias=False), nn.Linear(RANK, dimension, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, asked: Found, share: Tensor) -> tuple[Tensor, Tensor]:
        """What is added to the queries (B, D), and the length of the sum in standard deviations (B, 1)."""
        values = asked.values - self.mean
        z = (asked.similarity - asked.similarity[:, :1]) / self.spread
        plain = (values @ asked.query[:, :, None])[:, :, 0] / self.unit
        logit = self.sharpness.exp() * z
        if self.attends:
            shown = [z, torch.log(asked.reliability + RELIABILITY_STEP), plain, (asked.similarity - 1) / self.spread]
            fits = (values @ self.precision @ values.transpose(1, 2)).mean(2) / self.own
            logit = logit + self.attention(torch.stack([*shown, fits], dim=-1))[:, :, 0]
        near = torch.exp(logit.clamp(max=20.0)) * asked.found
        weights = near * (asked.reliability + 1e-6)
        weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-12)
        honest = (near * asked.reliability).sum(1) / near.sum(1).clamp(min=1e-6)
        mean = (weights[:, None] @ values)[:, 0]
        direction = mean @ self.precision
        toward = (values @ direction[:, :, None])[:, :, 0]
        full = (mean * direction).sum(1, keepdim=True)
        rest = (full - 2 * weights * toward + weights**2 * self.own).clamp(min=1e-6).sqrt()
        agreed = (weights * (toward - weights * self.own) / rest).sum(1).clamp(max=self.own**0.5)
        known = (weights * plain).sum(1)
        best, around = asked.similarity[:, 0], (asked.similarity * asked.found).sum(1) / asked.found.sum(1).clamp(min=1)
        columns = [torch.ones_like(best), known.clamp(min=LEAST).log(), agreed.clamp(min=LEAST).log()]
        columns += [torch.log(honest + RELIABILITY_STEP), (best - 1) / self.spread, (best - around) / self.spread]
        features = torch.maximum(torch.minimum(torch.stack(columns, 1), self.high), self.low)
        logit = features @ self.phi
        if self.moves:
            logit = logit + self.strength(features)[:, 0]
        if self.maps:
            direction = direction + self.up(self.down(direction))
        over = direction @ self.covariance
        length = (direction * over).sum(1).clamp(min=1e-9).sqrt()
        strength = share * torch.exp(logit.clamp(-2 * STRONGEST, STRONGEST))
        correlation = (asked.query * over).sum(1) / length / self.unit
        whole = (1 + strength**2 + 2 * strength * correlation).clamp(min=1e-6).sqrt()
        return (self.unit * strength / length)[:, None] * direction, whole[:, None]

    def refine(self, asked: Found) -> Vectors:
        """Refined vectors (B, D)."""
        with torch.no_grad():
            added, _ = self(asked, torch.from_numpy(self.applied.share(asked.similarity[:, 0].numpy())))
            return np.asarray(nn.functional.normalize(asked.query + added, dim=1).numpy())


def _from_zero(inputs: int) -> nn.Sequential:
    last = nn.Linear(16, 1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(inputs, 16), nn.Tanh(), last)


class Episodes:
    """Held-out pairs that ask, with their siblings visible (0) and hidden (1)."""

    def __init__(self, corpus: Corpus, modality: Modality, rows: Rows) -> None:
        keys, values = corpus.side(modality), corpus.side(other(modality))
        near = corpus.text[rows] @ corpus.text.T > corpus.same_caption
        near[np.arange(len(rows)), rows] = True
        similarity = keys[rows] @ keys.T
        similarity[np.arange(len(rows)), rows] = -2.0
        self.rows, self.same = rows, near[:, rows]
        self.answers = torch.from_numpy(values[rows])
        self.asked, self.places = [], []
        for shown in (similarity, np.where(near, -2.0, similarity)):
            places, at = nearest_columns(shown, K)
            found = at > -1.5
            reliability = np.where(found, corpus.reliability_without(rows, places), 0.0)
            at = np.where(found, at, at[:, :1])
            parts = (keys[rows], values[places], at, reliability, found)
            self.asked.append(Found(*(torch.from_numpy(np.asarray(part, np.float32)) for part in parts)))
            self.places.append(places)

    def loss(self, layer: Layer, some: Rows, hidden: float) -> Tensor:
        """The gate's loss of some of them, among their answers."""
        answers = self.answers[some] - layer.mean
        total, own = torch.zeros(()), torch.arange(len(some))
        for which, weight in ((0, 1 - hidden), (1, hidden)):
            asked = Found(*(part[some] for part in vars(self.asked[which]).values()))
            added, length = layer(asked, torch.ones(len(some)))
            logit = layer.temperature.exp() * ((asked.query + added) @ answers.T) / layer.unit / length
            out = self.same[np.ix_(some, some)] & ~np.eye(len(some), dtype=bool)
            out |= (self.places[which][some][:, :, None] == self.rows[some][None, None]).any(1)
            np.fill_diagonal(out, False)
            share = logit.masked_fill(torch.from_numpy(out), -1e9).softmax(1)[own, own]
            lost = layer.lost.sigmoid()
            total = total - weight * ((1 - lost) * share + lost / len(some)).log().mean()
        return total


def train(layer: Layer, corpus: Corpus, modality: Modality, hidden: float, seed: int) -> tuple[float, float]:
    """Train in place; returns the loss on held-out pairs of the closed form and of the layer."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(corpus))[: ROWS + HELD]
    held = Episodes(corpus, modality, order[:HELD])
    asking = Episodes(corpus, modality, order[HELD:])
    everything = np.arange(len(held.rows))
    with torch.no_grad():
        first = best = float(held.loss(layer, everything, hidden))
    kept, left = {name: part.clone() for name, part in layer.state_dict().items()}, PATIENCE
    optimiser = torch.optim.AdamW(layer.parameters(), lr=2e-3, weight_decay=1e-2)
    for _ in range(EPOCHS):
        for some in np.array_split(rng.permutation(len(asking.rows)), max(1, len(asking.rows) // BATCH)):
            optimiser.zero_grad()
            loss = asking.loss(layer, some, hidden)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        with torch.no_grad():
            now = float(held.loss(layer, everything, hidden))
        if now < best - 1e-4:
            best, left, kept = now, PATIENCE, {name: part.clone() for name, part in layer.state_dict().items()}
        else:
            left -= 1
            if not left:
                break
    layer.load_state_dict(kept)
    return first, best


def measure(trial: Trial, seeds: Sequence[int]) -> Iterator[list[str]]:
    """One row for each part and variant: plain, closed form, layer, and its lead with its interval."""
    learned = calibrate(trial.image, trial.text, k=K)
    corpus = measure_corpus(trial.image, trial.text, k=K, rng=np.random.default_rng(0))
    assert learned is not None
    assert corpus is not None
    state, modality = learned.state, trial.modality
    applied = state.gate(modality, "balanced")
    if applied is None:
        why = state.why_plain(modality, candidate=False)
        yield [trial.name, "nothing", "", "", "", f"the closed form stays plain: {why}", ""]
        return
    keys, values = corpus.side(modality), corpus.side(other(modality))
    places, similarity = nearest_columns(trial.query @ keys.T, K)
    reliability = state.reliability.of(learned.witnesses[places])
    parts = (trial.query, values[places], similarity, reliability, np.ones_like(similarity))
    asked = Found(*(torch.from_numpy(np.asarray(part, np.float32)) for part in parts))
    plain = trial.hits(trial.query)
    hidden = state.shares["balanced"]
    for variant in VARIANTS:
        begun = trial.hits(Layer(state, applied, modality, variant).refine(asked))
        found, losses = list[Hits](), list[tuple[float, float]]()
        for seed in seeds:
            torch.manual_seed(seed)
            layer = Layer(state, applied, modality, variant)
            losses.append(train(layer, corpus, modality, hidden, seed))
            found.append(trial.hits(layer.refine(asked)))
        layer_hits = np.mean(found, axis=0)
        before, after = np.mean(losses, axis=0)
        for part, chosen in trial.parts.items():
            lead = bootstrap((layer_hits - begun)[chosen], trial.truth[chosen])
            yield [
                f"{trial.name}: {part}",
                variant,
                f"{plain[chosen].mean():.1f}",
                f"{begun[chosen].mean():.1f}",
                f"{layer_hits[chosen].mean():.1f}",
                f"{lead.mean:+.1f} ({lead.low:+.1f} to {lead.high:+.1f})",
                f"{before:.3f} → {after:.3f}",
            ]


def imagenet(data: Path, seed: int) -> Iterator[Trial]:
    """Half of the classes in the memory, two images each."""
    vectors = load_imagenet(data)
    half = np.sort(np.random.default_rng(seed).permutation(1000)[:500])
    image = vectors.image[half][:, :2].reshape(-1, 512)
    text = np.repeat(vectors.caption[half], 2, axis=0)
    everything = np.arange(1000)
    gallery, labels = vectors.image[:, 2:].reshape(-1, 512), np.repeat(everything, 2)
    known = np.isin(everything, half)
    parts = {"known": known, "unknown": ~known}
    name = f"ImageNet, half {seed}, texts"
    yield Trial(name, image, text, "text", vectors.prompt, gallery, everything, labels, parts)


def drawings() -> Iterator[Trial]:
    """Emoji under the shipped mini CLIP."""
    from .results import encoder_of
    from .sets import emoji
    from .sets.vectors import vectors

    cache = Path(".cache")
    encoder, fingerprint = encoder_of("scratch", cache)
    data = vectors(emoji.load(cache / "quickstart"), encoder, fingerprint.digest, cache / "sets")
    splits = np.array(data.splits)
    for split in ("unseen", "seen"):
        mine = np.flatnonzero(splits == split)
        asking = np.isin(data.truth, mine)
        whole = {split: np.ones(int(asking.sum()), np.bool_)}
        pairs = (data.memory.image, data.memory.text)
        queries, truth = data.queries, data.truth[asking]
        prompts = data.prompts[mine]
        yield Trial("emoji, images", *pairs, "image", queries.image[asking], prompts, truth, mine, whole)
        gallery = queries.image[asking]
        yield Trial("emoji, texts", *pairs, "text", queries.text[asking], gallery, truth, truth, whole)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the real CLIP's vectors; without one, emoji only")
    parser.add_argument("--seeds", type=int, default=3)
    told = parser.parse_args(arguments)
    rows = []
    trials = [*(trial for seed in range(2) for trial in (imagenet(told.data, seed) if told.data else ()))]
    for trial in [*trials, *drawings()]:
        for row in measure(trial, range(told.seeds)):
            print(" | ".join(row), flush=True)
            rows.append(row)
    head = ["queries", "learned", "plain", "closed form", "layer", "lead", "loss on held-out pairs"]
    print("\n" + table(head, rows, left=2))


if __name__ == "__main__":
    main()
