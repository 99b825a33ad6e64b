"""A graph of the same module is exported once for all tests of a run: torch takes two seconds or more for each.

Only torch's part is left out: what is made of the graph, and its comparison with torch, stays.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import onnx
import pytest

from reco_plugin.artifact import clip_graph
from reco_plugin.models import export
from reco_plugin.models.export import GraphCheck
from reco_plugin.models.folder import ONE_FILE, save

SIMPLE = (bool, int, float, str, tuple, type(None))


@contextmanager
def graphs_are_made_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep torch's graphs while the tests run, in a folder that their processes share; another run makes its own."""
    shared = "PYTEST_XDIST_WORKER" in os.environ
    folder = tmp_path_factory.getbasetemp().parent / "graphs" if shared else tmp_path_factory.mktemp("graphs")
    folder.mkdir(exist_ok=True)
    to_onnx = export.to_onnx

    def kept(case: GraphCheck, path: Path, limit: int = ONE_FILE) -> None:
        made = folder / f"{digest_of(case)}.onnx"
        if not made.exists():
            to_onnx(case, path)  # as one file
            part = made.with_suffix(f".{os.getpid()}")
            shutil.copyfile(path, part)
            part.rename(made)
        save(onnx.load(made), path, limit)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "to_onnx", kept)
        yield


def digest_of(case: GraphCheck) -> str:
    """Of all that decides the graph: ports, types of the inputs, the module's parts, their attributes and weights.

    Not of how many inputs there are, or how long texts: where the ports say so, the graph takes any.
    """
    digest = hashlib.sha256(repr((case.spec.inputs, case.spec.outputs)).encode())
    inputs = {name: array.dtype for name, array in case.batches[0].inputs.items()}
    digest.update(repr((inputs, case.module)).encode())
    for name, part in case.module.named_modules():
        simple = {key: value for key, value in vars(part).items() if isinstance(value, SIMPLE)}
        digest.update(repr((name, type(part), simple)).encode())
    for name, weight in chain(case.module.named_parameters(), case.module.named_buffers()):
        if case.spec.name == clip_graph("text") and "visual." in name:  # of open_clip's model, which has both towers
            continue
        digest.update(repr((name, weight.shape, weight.dtype)).encode())
        digest.update(weight.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()
