"""Drawn shapes."""

from __future__ import annotations

from PIL import Image, ImageDraw

COLOURS = ("red", "green", "blue", "orange")
SHAPES = ("circle", "square", "triangle")


def draw(colour: str, shape: str, radius: int) -> Image.Image:
    """A shape in the middle of a white square of 64 pixels."""
    image = Image.new("RGB", (64, 64), "white")
    pen, box = ImageDraw.Draw(image), (32 - radius, 32 - radius, 32 + radius, 32 + radius)
    match shape:
        case "circle":
            pen.ellipse(box, fill=colour)
        case "square":
            pen.rectangle(box, fill=colour)
        case _:
            pen.polygon([(32, box[1]), (box[0], box[3]), (box[2], box[3])], fill=colour)
    return image
