"""torch to ONNX, quietly."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import torch

from ..errors import ArtifactError
from .graphs import Case


def to_onnx(case: Case, path: Path) -> None:
    """Write a case's module as one file, for any batch size and any length where its ports say so.

    Raises:
        ArtifactError: torch gave no graph.
    """
    arrays = case.batches[0].inputs.values()
    arguments = tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)
    if len(arguments[0]) == 1:  # torch would take a batch of one for a constant
        arguments = tuple(torch.cat([argument, argument]) for argument in arguments)
    batch = torch.export.Dim("batch", min=1, max=65_536)
    shapes = [
        {0: batch} | {axis + 1: torch.export.Dim.DYNAMIC for axis, size in enumerate(port.dims) if size == -1}
        for port in case.spec.inputs
    ]
    with torch.no_grad():
        program = torch.onnx.export(
            case.module.eval(),
            arguments,
            input_names=[port.name for port in case.spec.inputs],
            output_names=[port.name for port in case.spec.outputs],
            dynamic_shapes=tuple(shapes),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise ArtifactError(f"torch exported nothing for {case.spec.name}")
    program.save(str(path), external_data=False)
    onnx.checker.check_model(str(path))


@contextmanager
def quiet() -> Iterator[None]:
    """Hush what the exporter and the quantiser log and warn of their own insides: no caller can act on it."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
