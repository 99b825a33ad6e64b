"""How fast an image becomes pixels, against open_clip's own transform, and whether they are the same to the bit.

    OMP_NUM_THREADS=1 python -m benchmarks.preparing

Encoded files in memory, decoded, resized and cut to 224 × 224; both take turns on one thread, and the least of the
rounds' medians of CPU time counts. Ours ends with bytes (normalising is part of the graph), open_clip's with normalised
floats.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from open_clip.transform import image_transform
from PIL import Image

from reco_plugin.preprocess import ImageConfig, images_to_array

from .degrade_overhead import fastest_medians
from .markdown import table

SIZE, CALLS = 224, 12
FILES = (("JPEG", 400, 300), ("JPEG", 1200, 800), ("JPEG", 4000, 3000), ("PNG", 800, 800), ("WEBP", 1200, 800))


def file_of(kind: str, width: int, height: int) -> bytes:
    """A picture with edges, gradients and noise."""
    rng = np.random.default_rng(0)
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    waves = np.stack([np.sin(12 * across + colour) * np.cos(9 * down) for colour in range(3)], -1)
    noise = rng.normal(0, 6, (height, width, 3))
    out = io.BytesIO()
    Image.fromarray(np.clip(127 + 100 * waves + noise, 0, 255).astype(np.uint8)).save(out, kind)
    return out.getvalue()


def prepared(image: bytes | Image.Image, config: ImageConfig) -> npt.NDArray[np.uint8]:
    """Pixels (224, 224, 3) by this package."""
    pixels: npt.NDArray[np.uint8] = images_to_array([image], config, max_pixels=10**8)[0]
    return pixels


def opened_by(transform: Callable[[Image.Image], object], data: bytes) -> object:
    """What a transform makes of a file."""
    with Image.open(io.BytesIO(data)) as image:
        return transform(image)


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args(
        arguments
    )
    config = ImageConfig(size=(SIZE, SIZE))
    theirs = image_transform(SIZE, is_train=False)
    torch.set_num_threads(1)
    rows = []
    for kind, width, height in FILES:
        data = file_of(kind, width, height)
        with Image.open(io.BytesIO(data)) as opened:
            image = opened.convert("RGB")
        exact = image_transform(SIZE, is_train=False, mean=(0.0,) * 3, std=(1.0,) * 3)(image).permute(1, 2, 0)
        same = np.array_equal(np.rint(exact.numpy() * 255).astype(np.uint8), prepared(data, config))
        decoded = fastest_medians(CALLS, partial(theirs, image), partial(prepared, image, config))
        whole = fastest_medians(CALLS, partial(opened_by, theirs, data), partial(prepared, data, config))
        rows.append(
            [f"{kind}, {width} × {height}", *_cells(*decoded), *_cells(*whole), "yes" if same else "no"],
        )
    head = ["file", "open_clip, decoded", "ours", "as fast", "open_clip, with decoding", "ours", "as fast", "same bits"]
    print(table(head, rows))


def _cells(other: float, ours: float) -> list[str]:
    return [f"{1000 * other:.2f} ms", f"{1000 * ours:.2f} ms", f"× {other / ours:.2f}"]


if __name__ == "__main__":
    main()
