"""Inputs of the graphs: images -> (B, H, W, 3) uint8 and texts -> (B, L) token ids.

They equal the outputs of open_clip's transform before its ``ToTensor`` and of its tokenizers, bit by bit.
"""

from __future__ import annotations

from ...defaults import MAX_PIXELS
from .image import ImageConfig, image_to_array, image_to_file, images_to_array, name_image
from .text import BUCKETS, TextConfig, Tokenizer, Tokens, cut_by_length, cut_to_longest

__all__ = [
    "BUCKETS",
    "MAX_PIXELS",
    "ImageConfig",
    "TextConfig",
    "Tokenizer",
    "Tokens",
    "cut_by_length",
    "cut_to_longest",
    "image_to_array",
    "image_to_file",
    "images_to_array",
    "name_image",
]
