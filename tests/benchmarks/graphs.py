"""Graphs made by hand, whose work and memory can be counted on paper."""

from onnx import ModelProto, TensorProto, helper


def value(name, dims, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, dims)


def weight(name, dims, kind=TensorProto.FLOAT):
    """A stored tensor without content: only its shape is read."""
    return TensorProto(name=name, dims=dims, data_type=kind)


def model(nodes, inputs, outputs, weights=(), inner=()) -> ModelProto:
    graph = helper.make_graph(list(nodes), "by hand", list(inputs), list(outputs), value_info=list(inner))
    graph.initializer.extend(weights)
    return helper.make_model(graph)


def chain(side="n"):
    """x [n, 8] -> a = x @ w [n, 16] -> b = relu(a) -> y = b @ v [n, 4]."""
    return model(
        [
            helper.make_node("MatMul", ["x", "w"], ["a"]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("MatMul", ["b", "v"], ["y"]),
        ],
        [value("x", [side, 8])],
        [value("y", [side, 4])],
        [weight("w", [8, 16]), weight("v", [16, 4])],
        [value("a", [side, 16]), value("b", [side, 16])],
    )
