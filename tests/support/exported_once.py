"""A graph of the same module is exported once for all tests of a run: torch takes two seconds or more for each.

Only torch's part is left out: what is made of the graph, and its comparison with torch, stays.
"""

from __future__ import annotations

import gc
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from reco_plugin.artifact import clip_graph
from reco_plugin.train import export
from reco_plugin.train.graph_file import ONE_FILE, read_graph, write_graph
from reco_plugin.train.model import FusionConfig, FusionLayer
from reco_plugin.train.to_onnx import GraphCheck, Traced

SIMPLE = (bool, int, float, str, tuple, type(None))


@pytest.fixture(autouse=True, scope="session")
def graphs_are_made_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep torch's graphs while the tests run, in a folder that their processes share; another run makes its own."""
    shared = "PYTEST_XDIST_WORKER" in os.environ
    folder = tmp_path_factory.getbasetemp().parent / "graphs" if shared else tmp_path_factory.mktemp("graphs")
    to_onnx, layers = export.to_onnx, dict[FusionConfig, Traced]()

    def kept(case: GraphCheck, path: Path, limit: int = ONE_FILE) -> None:
        if not isinstance(case.module, nn.Module):  # torch has no part in it
            to_onnx(case, path, limit)
            return
        if case.traced is not None and isinstance(case.module, FusionLayer):  # as both sides of a model share it
            case = replace(case, traced=layers.setdefault(case.module.config, case.traced))
        made = folder / f"{digest_of(case)}.onnx"
        if not made.exists():
            with one_table_of_operators(), one_look_for_a_gpu(), no_look_for_garbage():
                to_onnx(case, path)  # as one file
            part = made.with_suffix(f".{os.getpid()}")
            shutil.copyfile(path, part)
            part.rename(made)
        else:
            shutil.copyfile(made, path)
        if limit < ONE_FILE:
            write_graph(read_graph(path), path, limit)

    trace = logging.getLogger("torch.__trace")  # pytest listens to loggers that do not propagate; this one would tell
    trace.propagate = True  # it all that the exporter does, which takes longer than doing it
    trace.handlers.clear()
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "to_onnx", kept)
        yield


@contextmanager
def one_table_of_operators() -> Iterator[None]:
    """Torch makes its table anew for each graph, which takes a fifth of an export."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(partial(made_by, ONNXRegistry.from_torchlib)))
        yield


@contextmanager
def one_look_for_a_gpu() -> Iterator[None]:
    """Torch looks again for each tensor that it makes up, where there is none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", cache(torch.cuda.is_available))
        yield


@contextmanager
def no_look_for_garbage() -> Iterator[None]:
    """Torch makes many small objects that stay until the graph is there; looking through them takes a twentieth."""
    looked = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if looked:
            gc.enable()


@cache
def made_by(make: Callable[..., Any], **options: Any) -> Any:
    """What it makes, once for each set of options."""
    return make(**options)


def digest_of(case: GraphCheck) -> str:
    """Of all that decides the graph: ports, types of the inputs, the module's parts, their attributes and weights.

    Not of how many inputs there are, or how long texts: where the ports say so, the graph takes any.
    """
    assert isinstance(case.module, nn.Module)
    digest = hashlib.sha256(repr((case.spec.inputs, case.spec.outputs)).encode())
    inputs = {name: array.dtype for name, array in case.batches[0].inputs.items()}
    digest.update(repr((inputs, case.module)).encode())
    for name, part in case.module.named_modules():
        simple = {key: value for key, value in vars(part).items() if isinstance(value, SIMPLE)}
        digest.update(repr((name, type(part), simple)).encode())
    for name, weight in tensors(case.module):
        if case.spec.name == clip_graph("text") and "visual." in name:  # of open_clip's model, which has both towers
            continue
        digest.update(repr((name, weight.shape, weight.dtype)).encode())
        digest.update(weight.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Also those that ``state_dict`` leaves out."""
    yield from module.named_parameters()
    yield from module.named_buffers()
