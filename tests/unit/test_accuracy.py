"""The measure of how far an output is from its reference."""

from __future__ import annotations

import math

import numpy as np
import pytest

from resonator.accuracy import relative_error, worst_error

ONE = np.array([1.0, -2.0, 4.0], np.float32)


def test_equal_arrays_have_no_error() -> None:
    assert relative_error(ONE, ONE) == 0.0


def test_the_error_is_relative_to_the_largest_expected_value() -> None:
    assert relative_error(ONE + np.array([0.0, 0.4, 0.0], np.float32), ONE) == pytest.approx(0.1)


def test_the_error_is_absolute_where_nothing_is_expected() -> None:
    assert relative_error(np.array([0.5]), np.array([0.0])) == 0.5


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_finite_on_one_side_only_is_infinitely_far(bad: float) -> None:
    broken = np.array([1.0, bad, 4.0], np.float32)
    assert relative_error(broken, ONE) == math.inf
    assert relative_error(ONE, broken) == math.inf
    assert relative_error(broken, broken) == 0.0


def test_other_shapes_are_infinitely_far_and_empty_ones_equal() -> None:
    assert relative_error(ONE[:2], ONE) == math.inf
    assert relative_error(ONE[:0], ONE[:0]) == 0.0


def test_the_worst_output_counts_and_a_missing_one_is_worst() -> None:
    assert worst_error({"a": ONE, "b": ONE * 1.5}, {"a": ONE, "b": ONE}) == pytest.approx(0.5)
    assert worst_error({"a": ONE}, {"a": ONE, "b": ONE}) == math.inf
