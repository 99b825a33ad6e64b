"""The small CLIP of all tests that take any encoder."""

from __future__ import annotations

from typing import Any

DIMENSION = 40  # of no width below: a graph that confuses them is seen
TEXT = {"context_length": 48, "vocab_size": 4096, "width": 32, "heads": 2, "layers": 2}
VISION = {"layers": 1, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32}
VIT: dict[str, Any] = {"embed_dim": DIMENSION, "quick_gelu": True, "vision_cfg": VISION, "text_cfg": TEXT}
