"""A Triton backend named ``onnxruntime`` for servers that have only the Python backend, as the wheel's.

Triton runs this file as ``onnxruntime/model.py`` inside its Python stub, so that a model folder that asks for the real
ONNX Runtime backend loads without a change. Like that backend, it runs what the batcher merged as one batch.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime as ort
import triton_python_backend_utils as pb


class TritonPythonModel:
    """One instance of one graph."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the graph of this version."""
        config = json.loads(args["model_config"])
        self.batched = config["max_batch_size"] > 0
        self.inputs = [port["name"] for port in config["input"]]
        self.outputs = [port["name"] for port in config["output"]]
        options = ort.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("TRITON_TEST_THREADS", "1"))
        graph = Path(args["model_repository"], args["model_version"], "model.onnx")
        self.session = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer requests; those of equal shapes (beside the batch) run together."""
        groups: dict[Any, list[int]] = defaultdict(list)
        arrays = [
            [pb.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs] for request in requests
        ]
        for index, values in enumerate(arrays):
            groups[tuple(value.shape[1:] for value in values) if self.batched else index].append(index)
        answers: list[Any] = [None] * len(requests)
        for members in groups.values():
            for index, answer in zip(members, self._run([arrays[index] for index in members]), strict=True):
                answers[index] = answer
        return answers

    def _run(self, group: list[list[np.ndarray]]) -> list[Any]:
        ends = np.cumsum([len(values[0]) for values in group])[:-1]
        merged = {
            name: np.concatenate(columns) for name, columns in zip(self.inputs, zip(*group, strict=True), strict=True)
        }
        try:
            values = self.session.run(self.outputs, merged)
        except Exception as error:  # a class of its own per failure
            return [pb.InferenceResponse(error=pb.TritonError(str(error))) for _ in group]
        parts = zip(*(np.split(value, ends) for value in values), strict=True)
        return [
            pb.InferenceResponse([pb.Tensor(name, part) for name, part in zip(self.outputs, row, strict=True)])
            for row in parts
        ]
