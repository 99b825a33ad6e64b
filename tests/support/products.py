"""How many axes the products of a graph with weights work on: three where on all tokens, two where on one."""

from __future__ import annotations

import onnx
import onnx_ir as ir


def axes_of_products(model: onnx.ModelProto, after: str | None = None) -> list[int]:
    """The number of axes of each product's output, in their order.

    Args:
        model: the graph.
        after: an operator; of what follows its last node only.
    """
    graph = ir.from_proto(onnx.shape_inference.infer_shapes(model)).graph
    nodes = list(graph)
    start = max((index for index, node in enumerate(nodes) if node.op_type == after), default=0)
    found = []
    for node in nodes[start:]:
        if node.op_type in ("MatMul", "Gemm") and graph.initializers.get(str(node.inputs[1].name)) is node.inputs[1]:
            assert node.outputs[0].shape is not None
            found.append(len(node.outputs[0].shape))
    return found
