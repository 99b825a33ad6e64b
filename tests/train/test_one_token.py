"""A token is picked before what treats tokens alone: equal answers, less work, and what is needed whole stays whole."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from products import axes_of_products

from reco_plugin.train.one_token import pick_early

BLOCK = """
    residual = Add(x, mixed)
    normed = LayerNormalization<axis = 2>(residual, scale, shift)
    wide = MatMul(normed, w1)
    biased = Add(b1, wide)
    gate = Sigmoid(biased)
    active = Mul(biased, gate)
    narrow = MatMul(active, w2)
    out = Add(residual, narrow)
"""
"""What follows the attention in a layer, with the sum around it."""
OLD_NORM = """
    mean = ReduceMean<axes = [2]>(out)
    centred = Sub(out, mean)
    squared = Pow(centred, two)
    variance = ReduceMean<axes = [-1]>(squared)
    deviation = Sqrt(variance)
    last = Div(centred, deviation)
"""
ATTENTION = """
    turned = Transpose<perm = [0, 2, 1]>(x)
    scores = MatMul(x, turned)
    weights = Softmax(scores)
    mixed = MatMul(weights, x)
"""
ENDS = "features = MatMul(picked, w2h)"
PICKS = {
    "class token": "picked = Gather<axis = 1>(out, first)",
    "last token": "picked = Gather<axis = 1>(out, end)",
    "end of each text": """
        ends = ArgMax<axis = 1, keepdims = 0>(ids)
        column = Unsqueeze(ends, one)
        size = Shape<start = 0, end = 1>(out)
        count = Squeeze(size)
        rows = Range(first, count, step)
        row = Unsqueeze(rows, one)
        places = Concat<axis = 1>(row, column)
        picked = GatherND(out, places)""",
    "end of each text, in one axis": """
        ends = ArgMax<axis = 1, keepdims = 0>(ids)
        sizes = Shape(out)
        count = Gather(sizes, first)
        length = Gather(sizes, step)
        rows = Range(first, count, step)
        before = Mul(rows, length)
        places = Add(before, ends)
        flat = Flatten<axis = 2>(out)
        picked = Gather(flat, places)""",
}
WEIGHTS = {
    "scale": (8,),
    "shift": (8,),
    "w1": (8, 16),
    "b1": (16,),
    "w2": (16, 8),
    "w2h": (8, 4),
    "wo": (8, 8),
    "bo": (8,),
}
X = np.random.default_rng(0).normal(size=(3, 5, 8)).astype(np.float32)
IDS = np.array([[1, 9, 2, 0, 0], [9, 1, 1, 1, 1], [1, 2, 3, 4, 9]], np.int64)


def graph(body: str, outputs: str = "float[batch, 4] features") -> ir.Model:
    """A graph of states (batch, length, 8) and ids (batch, length)."""
    rng = np.random.default_rng(1)
    head = '<ir_version: 9, opset_import: ["" : 17]>\n'
    inputs = "float[batch, length, 8] x, int64[batch, length] ids"
    model = onnx.parser.parse_model(f"{head} tower ({inputs}) => ({outputs}) {{ {body} }}")
    constants = {name: rng.normal(size=shape).astype(np.float32) for name, shape in WEIGHTS.items()}
    numbers = {"first": 0, "end": -1, "step": 1, "one": [1], "two": np.float32(2)}
    constants |= {name: np.asarray(number) for name, number in numbers.items()}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in constants.items())
    return ir.from_proto(model)


def run(model: ir.Model) -> list[np.ndarray]:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    session = ort.InferenceSession(proto.SerializeToString())
    found = session.run(None, {one.name: {"x": X, "ids": IDS}[one.name] for one in session.get_inputs()})
    return [np.asarray(one) for one in found]


def check(body: str, expected: list[int], moved: int = 1, outputs: str = "float[batch, 4] features") -> None:
    model = graph(body, outputs)
    before = run(model)
    assert pick_early(model) == moved
    for one, other in zip(before, run(model), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5)
    assert axes_of_products(ir.to_proto(model)) == expected
    assert pick_early(model) == 0  # nothing is left to move


@pytest.mark.parametrize("norm", [OLD_NORM, "last = LayerNormalization(out, scale, shift)"], ids=["old norm", "norm"])
@pytest.mark.parametrize("pick", PICKS)
def test_the_layer_after_the_attention_works_on_the_token_that_is_picked(pick: str, norm: str) -> None:
    check(ATTENTION + BLOCK + norm + PICKS[pick].replace("(out", "(last") + ENDS, [2, 2, 2])


@pytest.mark.parametrize("pick", ["class token", "end of each text"])
def test_the_product_of_an_attention_whose_axes_are_turned_works_on_that_token_too(pick: str) -> None:
    """As torch's own layer of attention is exported."""
    out = """
        turn = Transpose<perm = [1, 0, 2]>(mixed0)
        shape = Shape(turn)
        heads0 = Constant<value_ints = [0, 0, 2, 4]>()
        by_head = Reshape(turn, heads0)
        joined0 = Constant<value_ints = [-1, 8]>()
        joined = Reshape(by_head, joined0)
        product = Gemm(joined, wo, bo)
        apart = Reshape(product, shape)
        mixed = Transpose<perm = [1, 0, 2]>(apart)
    """
    body = ATTENTION.replace("mixed =", "mixed0 =") + out + BLOCK + PICKS[pick] + ENDS
    check(body, [2, 2, 2, 2])


def test_states_that_are_an_output_as_well_stay_whole() -> None:
    outputs = "float[batch, 4] features, float[batch, length, 8] out"
    check(ATTENTION + BLOCK + PICKS["class token"] + ENDS, [3, 3, 2], 0, outputs)
    last = "last = LayerNormalization(out, scale, shift)" + PICKS["class token"].replace("(out", "(last")
    check(ATTENTION + BLOCK + last + ENDS, [3, 3, 2], 1, outputs)


def test_states_that_another_branch_reads_stay_whole() -> None:
    body = ATTENTION + BLOCK + PICKS["class token"] + "part = MatMul(picked, w2h) mean = ReduceMean<axes = [1]>(narrow)"
    check(body + "low = MatMul(mean, w2h) flat = Squeeze(low, one) features = Add(part, flat)", [3, 3, 2, 3])


def test_an_output_that_is_the_token_itself_keeps_its_name() -> None:
    end = "last = LayerNormalization(out, scale, shift) features = Gather<axis = 1>(last, first)"
    check(ATTENTION + BLOCK + end, [2, 2], 1, "float[batch, 8] features")


def test_earlier_layers_are_needed_for_all_tokens() -> None:
    below = BLOCK.replace("mixed", "x")
    for name in ("residual", "normed", "wide", "biased", "gate", "active", "narrow", "out"):
        below = below.replace(name, f"{name}0")
    above = (ATTENTION + BLOCK).replace("(x", "(out0").replace(", x)", ", out0)")
    check(below + above + PICKS["class token"] + ENDS, [3, 3, 2, 2, 2])


@pytest.mark.parametrize(
    "end",
    [
        "mean = ReduceMean<axes = [1]>(out) picked = Squeeze(mean, one)",
        "best = ReduceMax<axes = [1], keepdims = 0>(out) picked = Identity(best)",
        "weights1 = Softmax<axis = 1>(out) picked = Gather<axis = 1>(weights1, first)",
        "each = LayerNormalization<axis = 1>(out, scale, shift) picked = Gather<axis = 1>(each, first)",
    ],
    ids=["mean", "maximum", "softmax over tokens", "norm over tokens"],
)
def test_what_mixes_tokens_is_left_alone(end: str) -> None:
    check(ATTENTION + BLOCK + end + ENDS, [3, 3, 2], 0)


def test_a_sum_that_repeats_one_token_for_all_is_not_picked_from() -> None:
    """That token is the only one of its value, so another cannot be picked there."""
    body = "alone = Gather<axis = 1>(x, one) each = Sigmoid(x) out = Add(each, alone)"
    check(body + PICKS["last token"] + ENDS, [2], 0)


def test_tokens_that_are_counted_otherwise_are_not_picked_from() -> None:
    """As many rows of as many tokens, but each is another than before."""
    body = """
        shape = Constant<value_ints = [-1, 8]>()
        joined = Reshape(x, shape)
        product = Gemm(joined, wo, bo)
        sizes = Shape(x)
        order = Constant<value_ints = [1, 0, 2]>()
        other = Gather(sizes, order)
        apart = Reshape(product, other)
        picked = Gather<axis = 0>(apart, first)
    """
    check(body + ENDS, [2, 2], 0)


def test_new_values_have_names_that_graphs_inside_of_nodes_do_not_use():
    """`onnx.checker` refuses a name that is there twice; torch names the values of its branches alike."""
    branch = "one () => (float[batch, length, 8] y) { val_0 = Relu(narrow) val_1 = Relu(val_0) y = Neg(val_1) }"
    twice = branch.replace("one ()", "other ()").replace("y", "z").replace("val_", "val_1")
    other = f"long = Cast<to = 9>(first) both = If(long) <then_branch = {branch}, else_branch = {twice}>"
    outputs = "float[batch, 4] features, float[batch, length, 8] both"
    check(ATTENTION + BLOCK + PICKS["class token"] + ENDS + other, [3, 3, 2], 1, outputs)
