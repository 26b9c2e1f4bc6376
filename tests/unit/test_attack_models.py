"""Models made to take memory, time or files: refused with one sentence, before anything is paid for."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from resonator_hub.frontends import ModelInvalid
from resonator_hub.frontends.limits import MAX_DEPTH, MAX_NAME, MAX_NODES
from resonator_hub.frontends.onnx import check
from small_models import model, residual_net

MIB = 2**20
CUSTOM = "own"


def proto() -> Any:
    return onnx.load_from_string(residual_net())


def relu(*, inputs: str = "x") -> Any:
    return helper.make_node("Relu", [inputs], ["y"])


def graph_of(*nodes: Any, initializers: tuple[Any, ...] = ()) -> Any:
    return helper.make_graph(list(nodes), "inner", [], [], initializers)


def external(location: str) -> Any:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "hidden")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def claiming(*dims: int) -> Any:
    """A tensor that says it is larger than it is."""
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "w")
    del tensor.dims[:]
    tensor.dims.extend(dims)
    return tensor


# --- where tensors hide -----------------------------------------------------------------------------------


def in_initializer(made: Any, tensor: Any) -> None:
    made.graph.initializer.append(tensor)


def in_attribute(made: Any, tensor: Any) -> None:
    made.graph.node.append(helper.make_node("Constant", [], ["k"], value=tensor))


def in_attributes(made: Any, tensor: Any) -> None:
    made.graph.node.append(helper.make_node("Odd", [], ["k"]))
    made.graph.node[-1].attribute.add(name="many").tensors.append(tensor)


def beside_what_the_attribute_says(made: Any, tensor: Any) -> None:
    made.graph.node[0].attribute[0].t.CopyFrom(tensor)


def in_subgraph(made: Any, tensor: Any) -> None:
    branch = graph_of(relu(), initializers=(tensor,))
    made.graph.node.append(helper.make_node("If", ["c"], ["k"], then_branch=branch, else_branch=branch))


def in_subgraphs(made: Any, tensor: Any) -> None:
    made.graph.node.append(helper.make_node("Odd", [], ["k"]))
    made.graph.node[-1].attribute.add(name="many").graphs.append(graph_of(relu(), initializers=(tensor,)))


def in_function(made: Any, tensor: Any) -> None:
    body = [helper.make_node("Constant", [], ["y"], value=tensor)]
    made.functions.append(helper.make_function(CUSTOM, "f", [], ["y"], body, made.opset_import))


def in_default_of_a_function(made: Any, tensor: Any) -> None:
    function = helper.make_function(CUSTOM, "f", ["x"], ["y"], [relu()], made.opset_import)
    function.attribute_proto.append(helper.make_attribute("value", tensor))
    made.functions.append(function)


def in_training(made: Any, tensor: Any) -> None:
    made.training_info.add().initialization.initializer.append(tensor)


def in_training_step(made: Any, tensor: Any) -> None:
    made.training_info.add().algorithm.initializer.append(tensor)


PLACES = [
    in_initializer,
    in_attribute,
    in_attributes,
    beside_what_the_attribute_says,
    in_subgraph,
    in_subgraphs,
    in_function,
    in_default_of_a_function,
    in_training,
    in_training_step,
]


@pytest.mark.parametrize("location", ["weights.bin", "../../etc/passwd", "/etc/passwd"])
@pytest.mark.parametrize("hide", PLACES)
def test_attack_by_external_data_is_refused_wherever_it_hides(
    hide: Callable[[Any, Any], None], location: str
) -> None:
    made = proto()
    hide(made, external(location))
    with pytest.raises(ModelInvalid, match="The weights of 'hidden' are in another file"):
        check(made.SerializeToString(), {})


def test_attack_by_external_data_that_says_it_is_internal_is_refused() -> None:
    made = proto()
    made.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")
    with pytest.raises(ModelInvalid, match="in another file"):
        check(made.SerializeToString(), {})


@pytest.mark.parametrize("hide", PLACES)
def test_attack_by_a_tensor_that_claims_more_than_it_has(hide: Callable[[Any, Any], None]) -> None:
    made = proto()
    hide(made, claiming(2**31, 2**31))
    with pytest.raises(ModelInvalid, match=f"'w' is said to have {2**62} elements, but the file has only 4"):
        check(made.SerializeToString(), {})


@pytest.mark.parametrize("dims", [(-1,), (2, -2), (1,) * 17])
def test_attack_by_a_tensor_of_no_possible_shape(dims: tuple[int, ...]) -> None:
    made = proto()
    in_initializer(made, claiming(*dims))
    with pytest.raises(ModelInvalid, match="Tensor 'w' has the shape"):
        check(made.SerializeToString(), {})


@pytest.mark.parametrize("element", [TensorProto.INT4, TensorProto.BOOL, TensorProto.BFLOAT16])
def test_weights_of_other_sizes_are_whole(element: int) -> None:
    made = proto()
    in_initializer(made, helper.make_tensor("k", element, [5], [1, 0, 1, 1, 0]))
    assert check(made.SerializeToString(), {}).nodes == 10


def test_attack_by_sparse_tensors_is_refused() -> None:
    values = helper.make_tensor("values", TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("indices", TensorProto.INT64, [1], [0])
    sparse = helper.make_sparse_tensor(values, indices, [2**40])
    made = proto()
    made.graph.sparse_initializer.append(sparse)
    with pytest.raises(ModelInvalid, match="sparse weights, which are not supported"):
        check(made.SerializeToString(), {})
    made = proto()
    made.graph.node.append(helper.make_node("Constant", [], ["k"], sparse_value=sparse))
    with pytest.raises(ModelInvalid, match="'sparse_value' is a sparse tensor"):
        check(made.SerializeToString(), {})


# --- shapes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ([2**31 - 1, 2**31 - 1], r"The inputs \('x' \[2147483647, 2147483647\]\) take \d+ bytes; at most"),
        ([2**32], "Input 'x' has the shape"),
        ([1] * 17, "16 extents"),
    ],
)
def test_attack_by_the_shape_of_an_input(shape: list[int], says: str) -> None:
    data = model([relu()], {"x": shape}, ["y"])
    assert len(data) < 1000
    with pytest.raises(ModelInvalid, match=says):
        check(data, {})


def test_attack_by_many_inputs_that_are_large_together() -> None:
    shapes: dict[str, Sequence[int | str]] = {f"x{number}": [2**14, 2**14] for number in range(8)}
    with pytest.raises(ModelInvalid, match="take 8589934592 bytes; at most 4294967296 are accepted"):
        check(model([relu(inputs="x0")], shapes, ["y"]), {})


def test_attack_by_the_shape_that_is_asked_for() -> None:
    data = model([relu()], {"x": ["n", "m"]}, ["y"])
    with pytest.raises(ModelInvalid, match="at most 4294967296 are accepted"):
        check(data, {"x": [2**31 - 1, 2**31 - 1]})
    with pytest.raises(ModelInvalid, match="every extent must be positive, at most 2147483647"):
        check(data, {"x": [2**70, 1]})


@pytest.mark.parametrize(
    "bomb",
    [
        helper.make_node("ConstantOfShape", ["shape"], ["y"], "bomb"),
        helper.make_node("Expand", ["x", "shape"], ["y"], "bomb"),
        helper.make_node("Tile", ["x", "shape"], ["y"], "bomb"),
        helper.make_node("Pad", ["x", "shape"], ["y"], "bomb"),
        helper.make_node("Resize", ["x", "", "", "shape"], ["y"], "bomb"),
        helper.make_node("Range", ["zero", "end", "one"], ["y"], "bomb"),
        helper.make_node("OneHot", ["x", "end"], ["y"], "bomb"),
        helper.make_node("RandomNormal", [], ["y"], "bomb", shape=[2**20, 2**20]),
    ],
    ids=lambda node: str(node.op_type),
)
@pytest.mark.parametrize("constant", [False, True])
def test_attack_by_a_small_model_that_unfolds_to_terabytes(bomb: Any, constant: bool) -> None:
    known = {
        "shape": np.array([2**40, 1], np.int64),
        "end": np.array(2**40, np.int64),
        "zero": np.array(0, np.int64),
        "one": np.array(1, np.int64),
    }
    nodes = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value, name))
        for name, value in known.items()
    ]
    data = model([*(nodes if constant else []), bomb], {"x": [1, 1]}, ["y"], {} if constant else known)
    with pytest.raises(ModelInvalid, match=rf"{bomb.op_type} 'bomb' makes a tensor of \d+ bytes or more"):
        check(data, {})


# --- structure --------------------------------------------------------------------------------------------


def test_attack_by_functions_that_double_at_every_call() -> None:
    made = proto()
    for level in range(MAX_DEPTH - 1):
        name, calls = f"f{level}", f"f{level - 1}"
        kind, domain = ("Relu", "") if level == 0 else (calls, CUSTOM)
        body = [
            helper.make_node(kind, ["x"], ["a"], domain=domain),
            *(helper.make_node(kind, ["a"], [end], domain=domain) for end in ("b", "c", "y")),
        ]
        imports = [*made.opset_import, helper.make_opsetid(CUSTOM, 1)]
        made.functions.append(helper.make_function(CUSTOM, name, ["x"], ["y"], body, imports))
    made.graph.node.append(helper.make_node(name, ["scores"], ["out"], domain=CUSTOM))
    data = made.SerializeToString()
    assert len(data) < 10_000
    with pytest.raises(ModelInvalid, match=f"The model has \\d+ nodes; at most {MAX_NODES} are accepted"):
        check(data, {})


@pytest.mark.parametrize("loop", [1, 2, 40])
def test_attack_by_functions_that_call_each_other_in_a_circle(loop: int) -> None:
    made = proto()
    for number in range(loop):
        body = [helper.make_node(f"f{(number + 1) % loop}", ["x"], ["y"], domain=CUSTOM)]
        made.functions.append(helper.make_function(CUSTOM, f"f{number}", ["x"], ["y"], body, []))
    made.graph.node.append(helper.make_node("f0", ["scores"], ["out"], domain=CUSTOM))
    with pytest.raises(ModelInvalid, match=f"Functions call functions, deeper than the {MAX_DEPTH}"):
        check(made.SerializeToString(), {})


def test_attack_by_graphs_in_graphs() -> None:
    node = relu()
    for _ in range(MAX_DEPTH + 2):
        node = helper.make_node("Loop", [], ["y"], body=graph_of(node))
    made = proto()
    made.graph.node.append(node)
    with pytest.raises(ModelInvalid, match=f"graphs in graphs, deeper than the {MAX_DEPTH}"):
        check(made.SerializeToString(), {})


def test_attack_by_nesting_deeper_than_protobuf_reads() -> None:
    def field(number: int, data: bytes) -> bytes:
        size, varint = len(data), b""
        while size > 127:
            varint, size = varint + bytes([size & 127 | 128]), size >> 7
        return bytes([number << 3 | 2]) + varint + bytes([size]) + data

    graph = b""
    for _ in range(5000):
        graph = field(1, field(5, field(6, graph)))  # a graph's node's attribute's graph
    data = residual_net() + field(7, graph)
    with pytest.raises(ModelInvalid, match="not an ONNX file"):
        check(data, {})


def test_attack_by_very_many_nodes() -> None:
    made = proto()
    for _ in range(MAX_NODES):
        made.graph.node.add()
    with pytest.raises(ModelInvalid, match=f"has 100010 nodes; at most {MAX_NODES} are accepted"):
        check(made.SerializeToString(), {})


def _name_node(made: Any, name: str) -> None:
    made.graph.node[0].name = name


def _name_output(made: Any, name: str) -> None:
    made.graph.node[0].output[0] = name


def _name_tensor(made: Any, name: str) -> None:
    made.graph.initializer[0].name = name


@pytest.mark.parametrize("place", [_name_node, _name_output, _name_tensor])
def test_attack_by_names_of_megabytes(place: Callable[[Any, str], None]) -> None:
    made = proto()
    place(made, "n" * 2 * MIB)
    with pytest.raises(ModelInvalid, match=f"name of 2097152 characters.*at most {MAX_NAME}") as raised:
        check(made.SerializeToString(), {})
    assert len(str(raised.value)) < 300


def test_attack_by_the_name_of_an_input() -> None:
    with pytest.raises(ModelInvalid, match=r"Input 'xxxx.* has a name of 300 characters; at most 256"):
        check(model([relu(inputs="x" * 300)], {"x" * 300: [1]}, ["y"]), {})


@pytest.mark.parametrize("element", [TensorProto.STRING, TensorProto.COMPLEX64, TensorProto.FLOAT8E4M3FN])
def test_inputs_of_what_is_no_number_are_refused(element: int) -> None:
    made = proto()
    made.graph.input[0].type.tensor_type.elem_type = element
    with pytest.raises(ModelInvalid, match="only numbers and truth values are accepted"):
        check(made.SerializeToString(), {})


def test_tensors_of_unknown_elements_are_refused() -> None:
    made = proto()
    made.graph.initializer[0].data_type = 999
    with pytest.raises(ModelInvalid, match="element type 999, which is unknown"):
        check(made.SerializeToString(), {})


def test_attack_on_memory_has_been_paid_for_by_nobody() -> None:
    """What claims terabytes is refused within the memory that its bytes take."""
    made = proto()
    in_subgraph(made, claiming(2**31, 2**31))
    bombs = [
        made.SerializeToString(),
        model([relu()], {"x": [2**31 - 1, 2**31 - 1]}, ["y"]),
        model(
            [helper.make_node("ConstantOfShape", ["s"], ["y"])],
            {},
            ["y"],
            {"s": np.array([2**40], np.int64)},
        ),
    ]
    tracemalloc.start()
    try:
        for bomb in bombs:
            with pytest.raises(ModelInvalid):
                check(bomb, {})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * MIB
