"""Work on one token only where only one token is needed: what a tower picks at its end is picked earlier.

The vector of a picture or a text is made of one token of the last layer: the class token, the last, or the one that
ends a text. Norms, sums, activations and products with weights treat each token alone, so they give the same when the
token is picked before them. The attention mixes tokens: there it ends. Of a layer's work, three quarters are behind it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

_ACTIVATIONS = "Abs Cast Clip Elu Erf Exp Gelu HardSigmoid HardSwish Identity LeakyRelu Log Mish Neg Reciprocal Relu"
_MORE = "Sigmoid Softplus Sqrt Tanh BiasGelu FastGelu QuickGelu"  # some are of ONNX Runtime
_EACH = frozenset(f"{_ACTIVATIONS} {_MORE} Add Div Mul Pow Sub".split())
"""Operators on each value alone, or each pair of values."""
_PRODUCTS = frozenset({"Gemm", "MatMul"})
_DOMAINS = ("", "com.microsoft")
_SWAPPED = (1, 0, 2)  # order of axes

AxisSize = int | ir.SymbolicDim
AxisSizes = tuple[AxisSize, ...]


class TokenAxes(NamedTuple):
    """Where a value has the two axes of which tokens are picked."""

    turned: bool = False  # the other way round
    inner: AxisSize | None = None  # both as one axis, the second of this size


_AS_IS = TokenAxes()


def pick_early(model: ir.Model) -> int:
    """Move what picks a token before all that treats each token alone, in place; vectors stay the same.

    What is needed elsewhere as well stays as it is, for all tokens.

    Returns:
        How many were moved.
    """
    if any(_shape(node.outputs[0]) is None for node in model.graph):
        common.ShapeInferencePass(check_type=False, strict_mode=False)(model)
    moved = sum(_Move(model.graph, node).done() for node in list(model.graph) if _rank(_picked(node)) == 3)
    if moved:
        common.RemoveUnusedNodesPass()(model)
        common.NameFixPass()(model)  # a value of a graph inside of a node may be called as a new one is
    return moved


def _picked(node: ir.Node) -> ir.Value | None:
    """The tokens (B, L, D), or (L, B, D), of which a node picks some; None of another node."""
    if node.domain != "" or not node.inputs or (tokens := node.inputs[0]) is None:
        return None
    if node.op_type == "GatherND" and node.attributes.get_int("batch_dims", 0) == 0:
        return tokens if _width(node.inputs[1]) == 2 else None
    if node.op_type != "Gather" or node.inputs[1] is None:
        return None
    axis, source = node.attributes.get_int("axis", 0), tokens.producer()
    if axis == 0 and source is not None and _flattens(source):
        return source.inputs[0]
    return tokens if axis in (0, 1) and _rank(node.inputs[1]) == 0 else None


def _flattens(node: ir.Node) -> bool:
    """Whether a node makes (B x L, D) of (B, L, D)."""
    of, to = _shape(node.inputs[0] if node.inputs else None), _shape(node.outputs[0])
    if node.op_type == "Flatten":
        return node.attributes.get_int("axis", 1) in (2, -1)
    if node.op_type != "Reshape" or of is None or to is None:
        return False
    return (len(of), len(to)) == (3, 2) and _same(of[2], to[1])


class _Move:
    """Moves one picking node as far as it goes."""

    def __init__(self, graph: ir.Graph, node: ir.Node) -> None:
        self._graph, self._node = graph, node
        self._behind = _only_for(node, graph)
        self._new: list[ir.Node] = []
        self._found: dict[tuple[ir.Value, TokenAxes], ir.Value | None] = {}

    def done(self) -> bool:
        """Move it; False if it stays, as what it picks from mixes tokens or is needed whole."""
        tokens, node = _picked(self._node), self._node
        if tokens is None:
            return False
        found = self._of(tokens, _AS_IS)
        if found is None or (start := found.producer()) is None or start.op_type in (node.op_type, "Flatten"):
            return self._leave()
        ir.convenience.replace_nodes_and_values(self._graph, node, [node], self._new, node.outputs, [found])
        self._read_shapes_before()
        return True

    def _leave(self) -> bool:
        for node in self._new:  # which were never put in
            for index in range(len(node.inputs)):
                node.replace_input_with(index, None)
        return False

    def _add(self, operator: str, inputs: Sequence[ir.Value | None], domain: str = "", **attributes: Any) -> ir.Value:
        self._new.append(ir.node(operator, inputs, attributes, domain=domain))
        return self._new[-1].outputs[0]

    def _integers(self, *numbers: int) -> ir.Value:
        return self._add("Constant", [], value=ir.tensor(np.array(numbers, np.int64)))

    def _of(self, value: ir.Value, place: TokenAxes) -> ir.Value | None:
        """The picked tokens of a value; None where they cannot be told apart from the others."""
        if (value, place) not in self._found:
            found = self._by_its_sources(value, place) if value.producer() in self._behind else None
            self._found[value, place] = self._here(value, place) if found is None else found
        return self._found[value, place]

    def _here(self, value: ir.Value, place: TokenAxes) -> ir.Value | None:
        """The picked tokens, picked from the value itself."""
        if place.inner is not None:
            return None
        node, (index, turned) = self._node, (self._node.inputs[1], place.turned)
        if node.op_type == "GatherND":
            turn = turned and self._integers(1, 0)
            return self._add("GatherND", [value, self._add("Gather", [index, turn], axis=-1) if turn else index])
        if _picked(node) is node.inputs[0]:
            axis = node.attributes.get_int("axis", 0)
            return self._add("Gather", [value, index], axis=1 - axis if turned else axis)
        if turned or _rank(value) != 3:
            return None
        return self._add("Gather", [self._add("Flatten", [value], axis=2), index], axis=0)

    def _by_its_sources(self, value: ir.Value, place: TokenAxes) -> ir.Value | None:
        """The picked tokens, computed of those of what the value was computed of; None where tokens are mixed."""
        node = value.producer()
        if node is None or node.domain not in _DOMAINS or value is not node.outputs[0]:
            return None
        through = {"Transpose": self._turned, "Reshape": self._reshaped}.get(node.op_type, self._repeated)
        return through(node, place)

    def _repeated(self, node: ir.Node, place: TokenAxes) -> ir.Value | None:
        """The same node for the picked tokens."""
        attributes = _on_each_token(node)
        wide = [one for one in node.inputs if one is not None and not _fixed(one)]
        if attributes is None or any(not _same_tokens(one, wide[0]) for one in wide[1:]):
            return None
        picked = {one: self._of(one, place) for one in wide}
        if None in picked.values():
            return None
        inputs = [one if one is None else picked.get(one, one) for one in node.inputs]
        return self._add(node.op_type, inputs, node.domain, **attributes)

    def _turned(self, node: ir.Node, place: TokenAxes) -> ir.Value | None:
        source = node.inputs[0]
        if source is None or place.inner is not None or tuple(node.attributes.get_ints("perm", ())) != _SWAPPED:
            return None
        return self._of(source, place._replace(turned=not place.turned))

    def _reshaped(self, node: ir.Node, place: TokenAxes) -> ir.Value | None:
        """Through two axes that become one, and before that one that was two: around a product with weights."""
        source, to = node.inputs[0], _shape(node.outputs[0])
        of = _shape(source)
        if source is None or of is None or to is None:
            return None
        if place.inner is not None:
            return self._split(source, of, to, place)
        joined = (len(of), len(to)) == (2, 3) and _same(of[1], to[2]) and _rank(self._node.outputs[0]) == 2
        return self._of(source, place._replace(inner=to[1])) if joined else None

    def _split(self, source: ir.Value, of: AxisSizes, to: AxisSizes, place: TokenAxes) -> ir.Value | None:
        """The picked tokens of (B, L, D) or, by heads, (B, L, H, D / H), of which (B x L, D) was made."""
        if len(to) != 2 or len(of) not in (3, 4) or place.inner is None or not _same(of[1], place.inner):
            return None
        width, *parts = (size if isinstance(size, int) else 0 for size in (to[1], *of[2:]))
        if width == 0 or math.prod(parts) != width:
            return None
        apart = place._replace(inner=None)
        if len(of) == 3:
            return self._of(source, apart)
        found = self._here(source, apart)
        return found and self._add("Reshape", [found, self._integers(-1, width)])

    def _read_shapes_before(self) -> None:
        """Read shapes of values before the moved ones, which need not be computed for them."""
        for value, _ in self._found:
            for use in tuple(value.uses()):
                if use.node.op_type == "Shape":
                    use.node.replace_input_with(use.idx, _first_of_its_shape(value))


def _only_for(root: ir.Node, graph: ir.Graph) -> set[ir.Node]:
    """The nodes that treat each token alone and are needed for what a node picks, and for nothing else but shapes."""
    found, before = {root}, False
    for node in reversed(graph):
        before |= node is root
        if not before or any(value.is_graph_output() for value in node.outputs):
            continue
        used = (use.node for value in node.outputs for use in value.uses())
        if not all(one in found or one.op_type == "Shape" for one in used):
            continue
        if node.op_type in ("Flatten", "Reshape", "Transpose") or _on_each_token(node) is not None:  # takes longest
            found.add(node)
    return found - {root}


def _on_each_token(node: ir.Node) -> dict[str, Any] | None:
    """The attributes of a node for tokens on fewer axes; None if it does not treat each token alone."""
    attributes: dict[str, Any] = dict(node.attributes)
    fixed = [_rank(one) if one is not None and _fixed(one) else None for one in node.inputs]
    ranks = [rank for one, rank in zip(node.inputs, fixed, strict=True) if one is not None and _fixed(one)]
    if len(fixed) == len(ranks):
        return None
    if node.op_type in _PRODUCTS:
        plain = fixed[0] is None and fixed[1] == 2 and not node.attributes.get_int("transA", 0)
        return attributes if plain and all(rank in (0, 1) for rank in ranks[1:]) else None
    if any(rank not in (0, 1) for rank in ranks):
        return None
    last = (-1, (_rank(node.inputs[0]) or 0) - 1)
    if node.op_type == "LayerNormalization":
        alone = all(not one.uses() for one in node.outputs[1:]) and node.attributes.get_int("axis", -1) in last
        return attributes | {"axis": -1} if alone and len(fixed) - len(ranks) == 1 else None
    if node.op_type == "ReduceMean":  # of a norm in an older file
        alone = len(fixed) == 1 and bool(node.attributes.get_int("keepdims", 1))
        axes = tuple(node.attributes.get_ints("axes", ()))
        return attributes | {"axes": [-1]} if alone and len(axes) == 1 and axes[0] in last else None
    return attributes if node.op_type in _EACH and len(node.outputs) == 1 else None


def _fixed(value: ir.Value) -> bool:
    """Whether a value is of weights alone."""
    if value.is_initializer() or value.const_value is not None:
        return True
    node = value.producer()
    if node is None or node.op_type not in ("Cast", "Constant", "DequantizeLinear", "Identity", "Transpose"):
        return False
    return all(one is not None and _fixed(one) for one in node.inputs)


def _first_of_its_shape(value: ir.Value) -> ir.Value:
    """The first value that has the shape of this for sure, of those that it is computed of."""
    node = value.producer()
    if node is None or node.op_type not in (*_EACH, "LayerNormalization"):
        return value
    for one in node.inputs:
        if one is not None and not _fixed(one) and _alike(_shape(one), _shape(value)):
            return _first_of_its_shape(one)
    return value


def _same_tokens(one: ir.Value, other: ir.Value) -> bool:
    """Whether values have the same axes before their last for sure, so that none is repeated for the other."""
    first, second = _shape(one), _shape(other)
    return first is not None and second is not None and _alike(first[:-1], second[:-1])


def _alike(one: AxisSizes | None, other: AxisSizes | None) -> bool:
    return one is not None and other is not None and len(one) == len(other) and all(map(_same, one, other))


def _same(one: AxisSize, other: AxisSize) -> bool:
    """Whether sizes are equal for sure: unknown ones are not."""
    return one == other and (isinstance(one, int) or one.value is not None)


def _shape(value: ir.Value | None) -> AxisSizes | None:
    return tuple(value.shape) if value is not None and value.shape is not None else None


def _rank(value: ir.Value | None) -> int | None:
    if value is not None and (constant := ir.convenience.get_const_tensor(value)) is not None:
        return len(constant.shape)
    shape = _shape(value)
    return None if shape is None else len(shape)


def _width(value: ir.Value | None) -> AxisSize | None:
    shape = _shape(value)
    return shape[-1] if shape else None
