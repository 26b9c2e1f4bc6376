"""Finds the convolutions of a graph that minimal filtering makes faster, and rewrites them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from resonator_hub.frontends.winograd.scheme import F2, F4, Scheme, weights
from resonator_hub.frontends.winograd.transforms import input_transform, output_transform
from resonator_hub.processor import Processor

if TYPE_CHECKING:
    from tvm.ir import IRModule

# Measured on one core of an EPYC 9004: 115 GFLOP/s in products, against which moving a value of a tile to and
# from the cache costs 4 operations, and fetching a weight from memory 24.
_MOVED = 4.0
_WEIGHT = 24.0
_GAIN = 0.85
"""The share of the plain convolution's estimate below which the difference is certain enough."""


def minimal_filtering(module: IRModule, processor: Processor) -> IRModule:
    """Return the model with those 3x3 convolutions (NHWC, constant weights) rewritten that become faster."""
    from tvm import relax
    from tvm.relax.expr_functor import PyExprMutator, mutator

    graph = _Graph(module["main"])

    @mutator
    class Rewriter(PyExprMutator):  # type: ignore[misc]
        def visit_call_(self, call: Any) -> Any:
            found = _convolution(call, graph)
            if found is None:
                return self.visit_expr_post_order(call)
            return _rewritten(found, self.visit_expr(found.image), self.builder_, processor)

    rewriter = Rewriter(module)
    rewriter.builder_.update_func(module.get_global_var("main"), rewriter.visit_expr(module["main"]))
    return relax.transform.DeadCodeElimination()(rewriter.builder_.get())


class _Graph:
    """What each variable of a function stands for, and what is computed from it."""

    def __init__(self, function: Any) -> None:
        bindings = [binding for block in function.body.blocks for binding in block.bindings]
        self._values = {binding.var: binding.value for binding in bindings}
        self._users: defaultdict[Any, list[Any]] = defaultdict(list)
        for value in self._values.values():
            for argument in getattr(value, "args", ()):
                self._users[argument].append(value)

    def value(self, variable: Any) -> Any:
        """Return the call that computes `variable`, or None for what is not computed."""
        return self._values.get(variable)

    def only_user(self, call: Any) -> Any:
        """Return the only call that takes the result of `call`, or None."""
        users = next((self._users[var] for var, value in self._values.items() if value.same_as(call)), [])
        return users[0] if len(users) == 1 else None


@dataclass(frozen=True)
class _Convolution:
    """A convolution with its bias, and perhaps a ReLU after it."""

    image: Any
    kernel: NDArray[np.float32]
    bias: Any
    shape: tuple[int, ...]
    scheme: Scheme
    relu: bool


def _convolution(call: Any, graph: _Graph) -> _Convolution | None:
    """Return the convolution that ends in `call`, conv + bias or ReLU(conv + bias), if rewriting it pays."""
    from tvm.ir import GenericConst

    relu = _is(call, "relax.nn.relu")
    added = graph.value(call.args[0]) if relu else call
    if not _is(added, "relax.add") or not isinstance(added.args[1], GenericConst):
        return None
    if not relu and _is(graph.only_user(call), "relax.nn.relu"):
        return None
    convolution = graph.value(added.args[0])
    if not _is(convolution, "relax.nn.conv2d") or not isinstance(convolution.args[1], GenericConst):
        return None
    image, kernel = convolution.args
    attributes = convolution.attrs
    ones = (*attributes.strides, *attributes.padding, *attributes.dilation, attributes.groups)
    shape = tuple(int(extent) for extent in convolution.ty.shape)
    array, bias = kernel.value.numpy(), added.args[1]
    plain = attributes.data_layout == "NHWC" and all(int(one) == 1 for one in ones)
    if not plain or array.shape[:2] != (3, 3) or array.dtype != np.float32:
        return None
    if bias.value.shape != (1, 1, 1, shape[-1]):
        return None
    scheme = _best_scheme(shape, array.shape[2])
    return None if scheme is None else _Convolution(image, array, bias, shape, scheme, relu)


def _is(call: Any, name: str) -> bool:
    return getattr(getattr(call, "op", None), "name", None) == name


def _best_scheme(shape: Sequence[int], channels: int) -> Scheme | None:
    """Return the scheme that should take least time, or None for the plain convolution."""
    n, height, width, outputs = shape
    plain = 2 * 9 * n * height * width * channels * outputs + _WEIGHT * 9 * channels * outputs

    def cost(scheme: Scheme) -> float:
        places, tiles = scheme.inputs**2, n * scheme.tiles(height) * scheme.tiles(width)
        product = 2 * places * tiles * channels * outputs
        moved = places * tiles * (channels + outputs)
        return product + _MOVED * moved + _WEIGHT * places * channels * outputs

    best = min((F2, F4), key=cost)
    return best if cost(best) < _GAIN * plain else None


def _rewritten(found: _Convolution, image: Any, builder: Any, processor: Processor) -> Any:
    from tvm import relax

    scheme, (n, height, width, _) = found.scheme, found.shape
    channels, places = found.kernel.shape[2], scheme.inputs**2

    def call(function: Any, name: str, arguments: list[Any], *shape: int) -> Any:
        out = relax.TensorType(shape, "float32")
        return builder.emit(relax.call_tir(builder.add_func(function, name), arguments, out))

    to_places = input_transform((n, height, width, channels), scheme, processor)
    tiles = n * scheme.tiles(height) * scheme.tiles(width)
    split = call(to_places, "winograd_input", [image], places, tiles, channels)
    product = builder.emit(relax.op.matmul(split, relax.const(weights(found.kernel, scheme))))
    to_image = output_transform(found.shape, scheme, processor, relu=found.relu)
    return call(to_image, "winograd_output", [product, found.bias], *found.shape)
