"""What a trace records: every operator that does something, and no other, since each is dispatched several times."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from export.onnx.trace import WithoutIdentities


class Doing(nn.Module):
    def __init__(self, call):
        super().__init__()
        self.call = call

    def forward(self, x):
        return self.call(x) * 2


def recorded(call, dtype=torch.float32):
    """Names of the operators of an exported program that calls `call` with a tensor [3] and doubles what it gives."""
    with WithoutIdentities():
        program = torch.export.export(Doing(call).eval(), (torch.ones(3, dtype=dtype),), strict=False)
    return [str(node.target) for node in program.graph.nodes if node.op == "call_function"]


IDENTITIES = {
    "float": Tensor.float,
    "to": lambda x: x.to(torch.float32),
    "by name": lambda x: x.to(dtype=x.dtype),
    "dropout": nn.Dropout(0.5).eval(),
    "dropout of a function": lambda x: functional.dropout(x, 0.5, training=False),
}
DOING = {
    "half": Tensor.half,
    "to": lambda x: x.to(torch.float16),
    "by name": lambda x: x.to(dtype=torch.float16),
    "copied": lambda x: x.to(torch.float32, copy=True),
    "dropout": lambda x: functional.dropout(x, 0.5),
}


@pytest.mark.parametrize("call", IDENTITIES.values(), ids=IDENTITIES)
def test_what_gives_back_its_input_is_not_recorded(call):
    assert recorded(call) == ["aten.mul.Tensor"]


@pytest.mark.parametrize("call", DOING.values(), ids=DOING)
def test_what_does_something_is(call):
    *before, last = recorded(call)
    assert last == "aten.mul.Tensor" and any("to.dtype" in name or "dropout" in name for name in before), before


def test_a_cast_of_another_type_is_recorded():
    *before, last = recorded(Tensor.float, torch.float16)
    assert last == "aten.mul.Tensor" and "aten.to.dtype" in before
