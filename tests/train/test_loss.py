"""RECO's loss against numbers worked out by hand, and against open_clip's own."""

from __future__ import annotations

import doctest
import math

import pytest
import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss
from torch import Tensor

from reco_plugin.train import loop
from reco_plugin.train.loop import info_nce, reco_loss

B, D = 6, 8


def embeddings(seed: int = 0) -> list[Tensor]:
    torch.manual_seed(seed)
    return [F.normalize(torch.randn(B, D), dim=-1).requires_grad_() for _ in range(4)]


def test_by_hand() -> None:
    eye, scale = torch.eye(2), torch.tensor(2.0)
    swapped = eye.flip(0)
    right, wrong = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))  # the right pair's logit is 2 and 0
    assert info_nce(eye, eye, scale).item() == pytest.approx(right, abs=1e-6)
    assert info_nce(eye, swapped, scale).item() == pytest.approx(wrong, abs=1e-6)
    # refined image right, refined text wrong: R-R wrong, refined image - text right, image - refined text wrong
    assert reco_loss(eye, eye, eye, swapped, scale).item() == pytest.approx(2 * wrong + right, abs=1e-6)


def test_the_doctest() -> None:
    results = doctest.testmod(loop)
    assert results.attempted > 0 and results.failed == 0


def test_each_term_is_open_clips_loss() -> None:
    image, text, refined_image, refined_text = embeddings()
    scale, theirs = torch.tensor(14.0), ClipLoss()
    terms = [(refined_image, refined_text), (refined_image, text), (image, refined_text)]
    expected = sum(theirs(a, b, scale) for a, b in terms)
    torch.testing.assert_close(reco_loss(image, text, refined_image, refined_text, scale), expected)
    torch.testing.assert_close(info_nce(image, text, scale), theirs(image, text, scale))
    torch.testing.assert_close(info_nce(text, image, scale), info_nce(image, text, scale))  # symmetric


def test_the_frozen_pair_has_no_term() -> None:
    """With refined vectors held still, what the frozen image is pushed by does not depend on the frozen text."""
    image, text, refined_image, refined_text = embeddings()
    scale = torch.tensor(10.0)
    (gradient,) = torch.autograd.grad(reco_loss(image, text, refined_image, refined_text, scale), image)
    other = F.normalize(torch.randn(B, D), dim=-1)
    (same,) = torch.autograd.grad(reco_loss(image, other, refined_image, refined_text, scale), image)
    torch.testing.assert_close(gradient, same)
    assert gradient.abs().max() > 1e-3
    total = reco_loss(image, text, refined_image, refined_text, scale)
    (only_once,) = torch.autograd.grad(info_nce(image, refined_text, scale), image)
    torch.testing.assert_close(gradient, only_once)
    assert not torch.isclose(total, total + info_nce(image, text, scale))
