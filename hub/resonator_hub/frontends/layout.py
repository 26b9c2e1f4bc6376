"""The order of a model's axes: images become NHWC where that pays."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tvm.ir import IRModule

_CONVOLUTION, _TRANSPOSE = "relax.nn.conv2d", "relax.permute_dims"


def channels_last(module: IRModule) -> IRModule:
    """Return the model with its convolutions in NHWC, or unchanged where the transposes would outweigh it.

    With the channels last, a vector of them is contiguous in inputs, weights and outputs whatever the size
    of the image; in NCHW a row of 7 or 13 pixels fills no vector. A transpose costs far less than a
    convolution, so one for each is accepted; a single convolution between two transposes stays as it is.
    """
    import tvm
    from tvm.relax import transform

    # Folded first, so that only transposes that are left for the device count.
    passes = [transform.ConvertLayout({_CONVOLUTION: ["NHWC", "HWIO"]}), transform.FoldConstant()]
    converted = tvm.transform.Sequential(passes)(module)
    before, after = _operators(module), _operators(converted)
    return converted if after[_TRANSPOSE] - before[_TRANSPOSE] <= after[_CONVOLUTION] else module


def _operators(module: IRModule) -> Counter[str]:
    """Count the operators of `main` by name."""
    from tvm import relax

    found: Counter[str] = Counter()

    def visit(node: Any) -> None:
        if isinstance(node, relax.Call) and hasattr(node.op, "name"):
            found[str(node.op.name)] += 1

    relax.analysis.post_order_visit(module["main"], visit)
    return found
