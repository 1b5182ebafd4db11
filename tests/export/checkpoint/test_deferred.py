"""Deferred weights: computed with where they are used, traced without, written one at a time, the same bytes in the end."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx_ir as ir
import pytest
import torch
from diffusers import FluxTransformer2DModel
from torch import nn

from export.checkpoint import deferred
from export.checkpoint.deferred import (
    LARGE,
    cast,
    defer,
    deferred_parameters,
    fill,
    is_deferred,
    on_demand,
    placeholder,
    values,
)
from export.checkpoint.seeded import seeded_tensor, stand_in
from export.networks import flux
from export.networks.components import build
from export.networks.faceclip.face_t5 import FaceT5Encoder
from export.networks.sdxl import FaceEncoder
from export.onnx import export as to_onnx
from export.onnx import graph
from export.onnx.errors import ExportError, GraphError
from export.onnx.export import export_component
from export.onnx.graph import defer_weights
from export.onnx.wanted import Export
from faceclip_serving.contract.names import DENOISER, FACE_ENCODER, VAE_DECODER
from faceclip_serving.contract.placements import ONNX_WEIGHTS_FILE
from faceclip_serving.contract.variants.flux import FLUX
from faceclip_serving.contract.variants.sdxl import TINY_SDXL
from tests.export.micro import MICRO


@pytest.fixture
def everything_is_large(monkeypatch):
    monkeypatch.setattr(deferred, "LARGE", 512)
    monkeypatch.setattr(graph, "LARGE", 512)


def network():
    with torch.device("meta"):
        return nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 16))


def test_a_deferred_network_computes_the_same_in_the_memory_of_a_layer(everything_is_large):
    ordinary, later = network(), network()
    stand_in(ordinary)
    stand_in(later, defer_large=True)
    assert set(deferred_parameters(later)) == {"0.weight", "2.weight"}
    inputs = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    held = []

    def look(_module, _inputs):
        held.append(sum(p.untyped_storage().nbytes() for p in later.parameters() if is_deferred(p)))

    later[0].register_forward_pre_hook(look)  # after the fetching one, which is global
    with torch.no_grad():
        assert later(inputs).isnan().all()  # whatever is used without being fetched shows
        with on_demand():
            assert torch.equal(later(inputs), ordinary(inputs))
        assert later(inputs).isnan().all()
    assert held[1] == 4 * (16 * 64 + 1)


def test_a_failure_inside_leaves_placeholders_behind(everything_is_large):
    module = network()
    stand_in(module, defer_large=True)
    with pytest.raises(RuntimeError), torch.no_grad(), on_demand():
        module(torch.ones(1, 15))
    assert all(p.untyped_storage().nbytes() == 4 for p in deferred_parameters(module).values())


def test_a_cast_holds_for_the_values_to_come(everything_is_large):
    module = network()
    stand_in(module, defer_large=True)
    cast(module[0].weight, torch.float16)
    assert module[0].weight.untyped_storage().nbytes() == 2
    expected = torch.from_numpy(seeded_tensor("0.weight", (64, 16))).half()
    assert torch.equal(values(module[0].weight), expected)
    assert torch.equal(values(module[0].bias), torch.from_numpy(seeded_tensor("0.bias", (64,))))


def test_only_large_parameters_wait_and_only_if_asked():
    module = network()
    fetched = []
    fill(module, {n: lambda n=n, t=t: fetched.append(n) or torch.zeros(t.shape) for n, t in module.state_dict().items()}, True)
    assert len(fetched) == 4 and not deferred_parameters(module) and LARGE > 1024


def test_a_component_of_deferred_weights_is_the_same_component(everything_is_large):
    faces = torch.rand(2, 3, 448, 448, generator=torch.Generator().manual_seed(1))
    later = build(MICRO, FACE_ENCODER)
    assert isinstance(later, FaceEncoder) and deferred_parameters(later)
    deferred.LARGE = 1 << 40  # the fixture puts it back
    ordinary = build(MICRO, FACE_ENCODER)
    assert not deferred_parameters(ordinary) and ordinary.shared == later.shared
    with torch.no_grad(), on_demand():
        for one, other in zip(later(faces), ordinary(faces), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_a_network_whose_weights_are_changed_in_place_is_not_deferred(everything_is_large):
    assert not deferred_parameters(build(MICRO, VAE_DECODER))
    assert deferred_parameters(build(TINY_SDXL, DENOISER))


def initializer(name, tensor):
    value = ir.tensor(np.ascontiguousarray(tensor.numpy()), name=name)
    return ir.Value(name=name, type=ir.TensorType(value.dtype), shape=value.shape, const_value=value)


def test_a_placeholder_never_reaches_a_file(everything_is_large):
    parameter = nn.Parameter(placeholder(torch.Size([32, 32])), requires_grad=False)
    defer(parameter, lambda: torch.ones(32, 32))
    model = ir.Model(ir.Graph([], [], nodes=[], initializers=[initializer("layer.weight", parameter.data)]), ir_version=10)
    with pytest.raises(GraphError, match=r"layer\.weight: its values were deferred"):
        defer_weights(model, {"other.weight": parameter})
    defer_weights(model, {"layer.weight": parameter})
    assert np.array_equal(model.graph.initializers["layer.weight"].const_value.numpy(), np.ones((32, 32), np.float32))


def test_the_file_is_that_of_weights_in_memory_to_the_bit(everything_is_large, micro_fp16, tmp_path):
    made = export_component(Export(MICRO, FACE_ENCODER, "fp16"), tmp_path / FACE_ENCODER)
    assert (tmp_path / FACE_ENCODER / ONNX_WEIGHTS_FILE).read_bytes() == (
        micro_fp16 / FACE_ENCODER / ONNX_WEIGHTS_FILE
    ).read_bytes()
    assert "proven_on" not in made["parity"]


# ------------------------------------------------------------------------------------------------ proof on fewer blocks
def test_parity_may_be_proven_on_fewer_blocks_and_says_so(monkeypatch, tmp_path):
    made = []

    def write(export, folder: Path, _clock, cases, subset=False, half=None):
        made.append((export.variant.name, bool(cases), subset, folder.is_dir()))
        return SimpleNamespace(parameters=1, notes={}, operators={})

    monkeypatch.setattr(to_onnx, "_write", write)
    monkeypatch.setattr(to_onnx, "_prove", lambda export, *_: {"tolerance": 0.5, "findings": [export.variant.name]})
    metadata = export_component(Export(FLUX, DENOISER, "fp16", seeded=True, depth="shallow"), tmp_path / "denoiser")
    shallow = "flux, 1 + 1 blocks"
    assert made == [(shallow, True, True, True), ("flux", False, False, True)]
    assert metadata["parity"] == {"tolerance": 0.5, "findings": [shallow], "proven_on": shallow}
    assert [path.name for path in tmp_path.iterdir()] == ["denoiser"]


@pytest.mark.parametrize(("depth", "message"), [("deep", "expected one of full, shallow"), ("shallow", "has no shallow form")])
def test_a_depth_that_there_is_not(tmp_path, depth, message):
    with pytest.raises(ExportError, match=message):
        export_component(Export(MICRO, DENOISER, "fp16", depth=depth), tmp_path / "x")


def test_a_shallow_form_has_the_same_widths_and_names():
    with torch.device("meta"):
        pairs = [
            [FluxTransformer2DModel(**v.architecture.transformer) for v in (FLUX, flux.shallow_denoiser(FLUX))],
            [FaceT5Encoder(v.architecture) for v in (FLUX, flux.shallow_text_encoder(FLUX))],
        ]
    for full, shallow in pairs:
        of_full, of_shallow = full.state_dict(), shallow.state_dict()
        assert all(of_full[name].shape == tensor.shape for name, tensor in of_shallow.items())
        values_of = [sum(t.numel() for t in tensors.values()) for tensors in (of_shallow, of_full)]
        assert 0 < values_of[0] < 0.3 * values_of[1]


def test_cleaning_a_graph_fetches_no_weight_and_keeps_their_names(everything_is_large, monkeypatch):
    fetched = []
    monkeypatch.setattr(graph, "values", lambda parameter: fetched.append(1) or values(parameter))
    with torch.device("meta"):
        module = nn.Sequential(nn.Linear(128, 96), nn.GELU(), nn.Linear(96, 128, bias=False))
    stand_in(module, defer_large=True)
    program = torch.export.export(module.eval().requires_grad_(False), (torch.zeros(2, 3, 128),))
    model = torch.onnx.export(program, dynamo=True, opset_version=21, optimize=False, verbose=False).model
    defer_weights(model, deferred_parameters(module))
    graph.clean(model)
    assert fetched == []
    names = {name for name, value in model.graph.initializers.items() if value.const_value.size >= 512}
    assert names == {"0.weight.transposed", "2.weight.transposed"}
    first = model.graph.initializers["0.weight.transposed"].const_value.numpy()
    assert np.array_equal(first, seeded_tensor("0.weight", (96, 128)).T) and fetched == [1]


def test_weights_can_be_fetched_for_good(everything_is_large):
    module = build(MICRO, DENOISER)
    names = list(deferred.deferred_parameters(module))
    deferred.fetch_all(module)
    found = dict(module.named_parameters())
    assert names and not deferred.deferred_parameters(module)
    assert all(bool(found[name].isfinite().all()) for name in names)
