"""What a trace records: operators that torch's ONNX exporter takes as they are, which compute what was called; and nothing idle."""

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from export.onnx.errors import ExportError
from export.onnx.recorded import _RULES, Recorded
from export.onnx.trace import traced


class Doing(nn.Module):
    def __init__(self, call):
        super().__init__()
        self.call = call

    def forward(self, x):
        return self.call(x) * 2


def recorded(call, dtype=torch.float32):
    """Names of the operators of an exported program that calls `call` with a tensor [3] and doubles what it gives."""
    with Recorded():
        program = torch.export.export(Doing(call).eval(), (torch.ones(3, dtype=dtype),), strict=False)
    return [str(node.target) for node in program.graph.nodes if node.op == "call_function"]


IDENTITIES = {
    "float": Tensor.float,
    "to": lambda x: x.to(torch.float32),
    "by name": lambda x: x.to(dtype=x.dtype),
    "to its device": lambda x: x.to(x.device),
    "dropout": nn.Dropout(0.5).eval(),
    "dropout of a function": lambda x: functional.dropout(x, 0.5, training=False),
}
CASTS = {
    "half": Tensor.half,
    "to": lambda x: x.to(torch.float16),
    "by name": lambda x: x.to(dtype=torch.float16),
    "with its device": lambda x: x.to("cpu", torch.float16),
}
OTHERS = {
    "copied": (lambda x: x.to(torch.float32, copy=True), "aten.to.dtype"),
    "dropout": (lambda x: functional.dropout(x, 0.5), "aten.dropout.default"),
}


@pytest.mark.parametrize("call", IDENTITIES.values(), ids=IDENTITIES)
def test_what_gives_back_its_input_is_not_recorded(call):
    assert recorded(call) == ["aten.mul.Tensor"]


@pytest.mark.parametrize("call", CASTS.values(), ids=CASTS)
def test_a_cast_is_one_operator(call):
    assert recorded(call) == ["aten._to_copy.default", "aten.mul.Tensor"]


def test_a_cast_of_another_type_is_recorded():
    assert recorded(Tensor.float, torch.float16) == ["aten._to_copy.default", "aten.mul.Tensor"]


@pytest.mark.parametrize(("call", "name"), OTHERS.values(), ids=OTHERS)
def test_what_no_rule_is_for_is_recorded_as_it_is(call, name):
    assert name in recorded(call)


_norm = nn.RMSNorm(6)
_batch = nn.BatchNorm1d(4, affine=True).eval()
nn.init.uniform_(_norm.weight)
for _each in (_batch.weight, _batch.bias, _batch.running_mean, _batch.running_var):
    nn.init.uniform_(_each)

CALLS = {
    Tensor.to: [lambda x: x.to(torch.int32)],
    Tensor.float: [lambda x: (x > 0).float()],
    Tensor.half: [Tensor.half],
    functional.dropout: [lambda x: functional.dropout(x, 0.5, training=False)],
    Tensor.flatten: [Tensor.flatten, lambda x: x.flatten(1, 2), lambda x: x.flatten(-2), lambda x: x.flatten(0, 1)],
    torch.flatten: [lambda x: torch.flatten(x, 2)],
    Tensor.unflatten: [lambda x: x.unflatten(-1, (2, -1)), lambda x: x.unflatten(1, (2, 2)), lambda x: x.unflatten(0, (-1, 1))],
    Tensor.chunk: [lambda x: x.chunk(2, -1)[1], lambda x: x.chunk(3, 1)[-1], lambda x: torch.cat(x.chunk(4, dim=3)[::-1])],
    torch.chunk: [lambda x: torch.chunk(x, 2, dim=-1)[0]],
    Tensor.__and__: [lambda x: ((x > 0) & (x < 0.5)).float()],
    functional.batch_norm: [lambda x: _batch(x[:, :, 0])],
    functional.rms_norm: [_norm, lambda x: functional.rms_norm(x, (5, 6), eps=0.1)],
}
"""Function -> ways to call it with a tensor [rows, 4, 5, 6]."""


def test_every_rule_is_tried():
    assert CALLS.keys() == _RULES.keys()


@pytest.mark.parametrize("call", [call for calls in CALLS.values() for call in calls])
def test_what_is_recorded_is_what_was_called_and_is_not_dispatched_again(call, monkeypatch):
    def refuse(*_):
        raise AssertionError("dispatched again")

    monkeypatch.setattr(torch.export.ExportedProgram, "run_decompositions", refuse)
    monkeypatch.setattr(torch.fx.Interpreter, "run_node", refuse)
    require_same(call)


def require_same(call):
    """A graph of `call` answers as torch does, types included, on other numbers of rows than it was traced with."""
    rows = torch.export.Dim("rows", min=1, max=9)
    model = traced(Doing(call).eval(), (torch.randn(3, 4, 5, 6),), ({0: rows},), ["x"], ["y"])
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    for count in (1, 5):
        x = torch.randn(count, 4, 5, 6)
        (found,) = session.run(None, {"x": x.numpy()})
        with torch.no_grad():
            expected = (call(x) * 2).numpy()
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


MIXED = {
    "half and full": lambda x: x.half() + x,
    "half and a number": lambda x: x.half() * 0.5,
    "whole numbers and real ones": lambda x: x.to(torch.int64) * x,
    "whole numbers and a real one": lambda x: x.to(torch.int64) * 0.5,
    "whole numbers divided": lambda x: x.to(torch.int64) / torch.full((6,), 4),
    "whole numbers within a function": lambda x: torch.exp(x.to(torch.int32)),
    "two kinds of whole numbers": lambda x: x.to(torch.int32) - x.to(torch.int64),
    "truth as a number": lambda x: (x > 0) * x,
    "compared": lambda x: (x.half() > x).float(),
    "compared with a real number": lambda x: (x.to(torch.int32) > 0.5).float(),
    "chosen": lambda x: torch.where(x > 0, x.half(), x),
    "joined": lambda x: torch.cat((x.half(), x), -1),
    "stacked": lambda x: torch.stack((x.to(torch.int64), x)),
    "counted": lambda x: (x > 0).sum(-1),
    "all counted": lambda x: (x > 0).sum() + x[:, 0, 0, 0],
    "a power": lambda x: x.to(torch.int32) ** 2 * x,
}


@pytest.mark.parametrize("call", MIXED.values(), ids=MIXED)
def test_mixed_types_are_promoted_as_torch_does(call):
    require_same(call)


def test_a_constant_made_on_the_way_is_kept():
    model = traced(Doing(lambda x: x + torch.tensor([1.0, 2.0, 3.0])), (torch.zeros(3),), None, ["x"], ["y"])
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.zeros(3, np.float32)})[0].tolist() == [2, 4, 6]


def test_an_operator_that_onnx_has_no_function_for_fails():
    with pytest.raises(torch.onnx.errors.OnnxExporterError, match=r"aten.to.dtype"):
        traced(Doing(lambda x: x.to(torch.int32, copy=True)), (torch.ones(3),), None, ["x"], ["y"])


def test_an_operator_that_writes_into_its_input_is_refused():
    with pytest.raises(ExportError, match=r"aten.add_.Tensor: expected operators that leave their inputs as they are"):
        traced(Doing(lambda x: (x * 1).add_(1)), (torch.ones(3),), None, ["x"], ["y"])
