"""Models are checked at the door: milliseconds, no TVM, one sentence for each thing that is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from resonator.tensors import TensorSpec
from resonator_hub.artifacts import reference, unpack_arrays
from resonator_hub.frontends import ModelInvalid
from resonator_hub.frontends.onnx import check
from resonator_hub.frontends.stand_in import with_random_weights
from small_models import model, residual_net


def test_a_good_model_is_described() -> None:
    card = check(residual_net(), {})
    assert card.inputs == (TensorSpec(name="image", shape=(1, 3, 16, 16), dtype="float32"),)
    assert card.outputs == ("scores",)
    assert "Conv" in card.operators
    assert card.nodes == 10
    assert card.parameters == 8 * 27 + 8 * 72 + 8 * 5 + 8 * 8


def test_weights_listed_as_inputs_are_not_asked_for() -> None:
    assert [spec.name for spec in check(residual_net(legacy=True), {}).inputs] == ["image"]


def test_a_dynamic_dimension_is_fixed_by_the_given_shape() -> None:
    card = check(residual_net(batch="batch"), {"image": [4, 3, 16, 16]})
    assert card.inputs[0].shape == (4, 3, 16, 16)


def test_a_dynamic_dimension_that_is_not_given_is_named_with_the_flag() -> None:
    with pytest.raises(ModelInvalid) as raised:
        check(residual_net(batch="batch"), {})
    assert "'image'" in str(raised.value)
    assert "[batch, 3, 16, 16]" in str(raised.value)
    assert "--shape image=1,3,16,16" in str(raised.value)


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        ({"picture": [1]}, "A shape is given for 'picture', but the model's inputs are: 'image'"),
        ({"image": [3, 16, 16]}, r"The shape \[3, 16, 16\] does not fit input 'image'"),
        ({"image": [1, 4, 16, 16]}, r"does not fit input 'image', which is \[1, 3, 16, 16\]"),
        ({"image": [0, 3, 16, 16]}, "every extent must be positive"),
        ({"image": [-1, 3, 16, 16]}, "every extent must be positive"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes: dict[str, list[int]], says: str) -> None:
    with pytest.raises(ModelInvalid, match=says):
        check(residual_net(), shapes)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 a zip file", b"\x00" * 64, b"not a model at all"])
def test_what_is_no_onnx_file_is_refused(data: bytes) -> None:
    with pytest.raises(ModelInvalid, match="not an ONNX file"):
        check(data, {})


@given(st.floats(0.0, 1.0, exclude_max=True))
def test_a_truncated_model_is_refused_wherever_it_ends(part: float) -> None:
    whole = residual_net()
    with pytest.raises(ModelInvalid):
        check(whole[: int(part * len(whole))], {})


@given(st.binary(max_size=200))
def test_random_bytes_never_raise_anything_else(data: bytes) -> None:
    with pytest.raises(ModelInvalid):
        check(data, {})


def test_weights_in_another_file_are_refused() -> None:
    proto = onnx.load_from_string(residual_net())
    proto.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    with pytest.raises(ModelInvalid, match="The weights of 'w1' are in another file"):
        check(proto.SerializeToString(), {})


def test_an_input_that_is_no_tensor_is_refused() -> None:
    proto = onnx.load_from_string(residual_net())
    element = helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, None)
    proto.graph.input[0].type.CopyFrom(helper.make_sequence_type_proto(element))
    with pytest.raises(ModelInvalid, match="'image' is not a tensor"):
        check(proto.SerializeToString(), {})


def test_an_input_without_a_shape_is_asked_for() -> None:
    data = model([helper.make_node("Relu", ["x"], ["y"])], {"x": []}, ["y"])
    proto = onnx.load_from_string(data)
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(ModelInvalid, match="Input 'x' has no shape; give it: --shape x="):
        check(proto.SerializeToString(), {})
    assert check(proto.SerializeToString(), {"x": [2, 3]}).inputs[0].shape == (2, 3)


def test_checking_does_not_import_tvm() -> None:
    code = "import resonator_hub.frontends.onnx, resonator, sys; sys.exit('tvm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_weights_count_in_a_model_of_constants() -> None:
    weights = {"w": np.ones((2, 3), np.float32)}
    data = model([helper.make_node("Add", ["x", "w"], ["y"])], {"x": [2, 3]}, ["y"], weights)
    assert (
        check(data, {}).parameters
        == numpy_helper.to_array(onnx.load_from_string(data).graph.initializer[0]).size
    )


@pytest.mark.parametrize("name", ["light_squeezenet", "light_shufflenet"])
def test_a_graph_without_weights_gets_some_that_tell_the_classes_apart(name: str) -> None:
    light = Path(onnx.__file__).parent / "backend/test/data/light" / f"{name}.onnx"
    data = with_random_weights(light.read_bytes(), seed=1)
    assert data == with_random_weights(light.read_bytes(), seed=1)
    assert check(data, {}).inputs == check(light.read_bytes(), {}).inputs
    assert check(data, {}).parameters > 1_000_000
    (scores,) = unpack_arrays(reference(data, {}, 0).outputs).values()
    assert np.isfinite(scores).all()
    assert scores.std() > 1e-5
    assert scores.max() < 0.99
