"""From the same pairs the same is learned, bit for bit: what uses it need not wait for it in each test."""

from __future__ import annotations

import hashlib
import os
import pickle
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reco_plugin.learning import learn


@contextmanager
def learned_once(folder: Path) -> Iterator[None]:
    """Keep what memories learn in a folder, which several processes may share."""
    calibrate = learn.calibrate

    def kept(image: Any, text: Any, *, progress: Any = int, **options: Any) -> Any:
        said = hashlib.sha256(repr((image.shape, text.shape, options)).encode())
        for side in (image, text):
            said.update(np.ascontiguousarray(side).tobytes())
        made = folder / said.hexdigest()
        if not made.exists():
            steps: list[int] = []

            def tell(count: int) -> None:
                steps.append(count)
                progress(count)

            learned = calibrate(image, text, progress=tell, **options)
            part = made.with_suffix(f".{os.getpid()}-{threading.get_ident()}")  # others may read meanwhile
            part.write_bytes(pickle.dumps((learned, steps)))
            part.rename(made)
            return learned
        learned, steps = pickle.loads(made.read_bytes())
        for count in steps:
            progress(count)
        return learned

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learn, "calibrate", kept)
        yield
