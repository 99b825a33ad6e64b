"""Image files that tests send."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    """An image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def halves(left: str, right: str) -> Image.Image:
    """Two colours side by side, so that turning the image changes it."""
    image = Image.new("RGB", (60, 60), left)
    image.paste(right, (30, 0, 60, 60))
    return image
