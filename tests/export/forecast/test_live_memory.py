"""Which tensors are alive at once, on graphs small enough to follow with a pencil."""

from dataclasses import replace

import pytest
from onnx import TensorProto, helper

from export.forecast.live_memory import ONNX_RUNTIME, Rules, peak_bytes, weight_bytes
from export.forecast.shapes import concrete
from tests.benchmarks.graphs import chain, model, value, weight

PLAIN = Rules()


def peak(nodes, shapes, inputs, outputs, rules=PLAIN, kind=TensorProto.FLOAT):
    inner = [value(name, dims, kind) for name, dims in shapes.items() if name not in (*inputs, *outputs)]
    ends = [[value(name, shapes[name], kind) for name in names] for names in (inputs, outputs)]
    return peak_bytes(concrete(model(nodes, *ends, inner=inner), {}), rules)


def test_a_tensor_is_freed_after_its_last_reader():
    """x 8, a 16, b in a's place, y 4 elements a row: x and a together are the most."""
    assert peak_bytes(concrete(chain(), {"n": 3}), PLAIN) == 4 * 3 * (8 + 16)


def test_a_tensor_that_is_read_later_is_not_written_over():
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Add", ["x", "a"], ["y"])]
    assert peak(nodes, {"x": [10], "a": [10], "y": [10]}, ["x"], ["y"]) == 4 * (10 + 10)


def test_a_skip_connection_stays_alive_until_it_is_joined():
    nodes = [
        helper.make_node("Conv", ["x"], ["skip"]),
        helper.make_node("Conv", ["skip"], ["down"]),
        helper.make_node("Conv", ["down"], ["up"]),
        helper.make_node("Concat", ["skip", "up"], ["y"]),
    ]
    shapes = {"x": [1], "skip": [100], "down": [10], "up": [100], "y": [200]}
    assert peak(nodes, shapes, ["x"], ["y"]) == 4 * (100 + 100 + 200)


def test_a_view_takes_no_memory_and_keeps_what_it_shows_alive():
    nodes = [
        helper.make_node("Conv", ["x"], ["a"]),
        helper.make_node("Reshape", ["a", "shape"], ["view"]),
        helper.make_node("Conv", ["x"], ["b"]),
        helper.make_node("Concat", ["view", "b"], ["y"]),
    ]
    shapes = {"x": [1], "a": [50], "view": [5, 10], "b": [50], "y": [100]}
    inner = [value(name, shapes[name]) for name in ("a", "view", "b")]
    graph = model(nodes, [value("x", [1])], [value("y", [100])], [weight("shape", [2], TensorProto.INT64)], inner)
    assert peak_bytes(concrete(graph, {}), PLAIN) == 4 * (50 + 50 + 100)


def test_a_smaller_tensor_cannot_hold_a_larger_result():
    nodes = [helper.make_node("Conv", ["x"], ["a"]), helper.make_node("Add", ["a", "a"], ["y"])]
    assert peak(nodes, {"x": [1], "a": [10], "y": [40]}, ["x"], ["y"]) == 4 * (10 + 40)


def test_half_precision_is_twice_as_wide_where_it_is_computed_as_single():
    nodes = [helper.make_node("Conv", ["x"], ["y"])]
    shapes = {"x": [10], "y": [30]}
    found = [peak(nodes, shapes, ["x"], ["y"], rules, TensorProto.FLOAT16) for rules in (PLAIN, replace(PLAIN, half_bits=32))]
    assert found == [2 * 40, 4 * 40]


@pytest.mark.parametrize(("bits", "expected"), [(None, 2 * 8 * 4 + 2 * 4), (8, 8 * 4 + 2 * 4)])
def test_a_quantisation_makes_matrices_smaller_and_leaves_vectors(bits, expected):
    half = model(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"])],
        [value("x", [1, 8], TensorProto.FLOAT16)],
        [value("y", [1, 4], TensorProto.FLOAT16)],
        [weight("w", [8, 4], TensorProto.FLOAT16), weight("b", [4], TensorProto.FLOAT16)],
    )
    assert weight_bytes(concrete(half, {}), bits) == expected


def test_an_arena_holds_more_than_lives():
    graph = concrete(chain(), {"n": 30})
    assert peak_bytes(graph, ONNX_RUNTIME) == round(ONNX_RUNTIME.arena * peak_bytes(graph, replace(ONNX_RUNTIME, arena=1.0)))
