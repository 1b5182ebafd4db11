"""FP16 with islands: what is converted, that islands hold, and that a graph in the wrong precision is noticed."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from export.networks.components import build
from export.networks.vae import fit_half_range, shrink_activations
from export.onnx.errors import PrecisionError
from export.onnx.example_inputs import example_inputs
from export.onnx.graph_precision import check_precision, precision_report
from export.onnx.precision import (
    HalfArithmetic,
    attention,
    to_half,
)
from faceclip_serving.contract.components import both_sides, components
from faceclip_serving.contract.names import COMPONENTS, DENOISER, FACE_ENCODER, VAE_DECODER, VAE_ENCODER
from faceclip_serving.contract.placements import ONNX_FILE
from tests.export.micro import MICRO


class Small(nn.Module):
    """Two products, a norm, a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)
        self.time = nn.Linear(8, 8)
        self.register_buffer("offset", torch.ones(8))

    def forward(self, x):
        return (functional.softmax(self.norm(self.inner(x)) + self.offset, dim=-1) + self.time(x),)


def export(module, path):
    program = torch.onnx.export(module.eval(), (torch.randn(3, 4, 8),), dynamo=True, opset_version=21, verbose=False)
    program.save(path)
    return precision_report(path)


def test_weights_are_half_but_those_of_norms_and_of_named_parts():
    module = Small()
    to_half(module, keep_fp32=("off",))
    halves = {name for name, tensor in module.state_dict().items() if tensor.dtype == torch.float16}
    assert halves == {"inner.weight", "inner.bias", "time.weight", "time.bias"}


def test_a_converted_module_takes_and_returns_fp32_and_agrees():
    module, x = Small(), torch.randn(2, 5, 8)
    (expected,) = copy.deepcopy(module)(x)
    to_half(module)
    (found,) = module(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-3)
    assert not torch.equal(found, expected)


@pytest.mark.parametrize(
    "compute",
    [
        lambda x: functional.layer_norm(x, x.shape[-1:]),
        lambda x: functional.group_norm(x, 4),
        lambda x: functional.rms_norm(x, x.shape[-1:]),
        lambda x: functional.normalize(x, dim=1),
        lambda x: functional.softmax(x, dim=1),
        lambda x: x.softmax(-1),
        lambda x: torch.linalg.vector_norm(x, dim=-1),
        lambda x: functional.grid_sample(x, x.permute(0, 2, 3, 1)[..., :2] / 128, align_corners=False),
    ],
)
def test_islands_give_the_rounded_fp32_result(compute):
    # Half overflows in squares of these values; channels last, as the deformable layer samples them.
    x = (40 * torch.randn(2, 96, 12, 12)).half().contiguous(memory_format=torch.channels_last)
    with HalfArithmetic():
        found = compute(x)
    assert found.dtype == torch.float16 and found.isfinite().all()
    torch.testing.assert_close(found, compute(x.float()).half(), rtol=2e-3, atol=2e-3)


def test_products_sum_in_fp32_and_round_once():
    x, weight = (torch.randn(4, 4096).half() for _ in range(2))
    with HalfArithmetic():
        linear, product = functional.linear(x.float(), weight), x @ weight.T
    expected = (x.float() @ weight.float().T).half()
    assert torch.equal(linear, expected) and torch.equal(product, expected)


@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_spelt_out_is_torchs(scale, masked):
    query, key, value = (torch.randn(2, 3, tokens, 16) for tokens in (5, 7, 7))
    mask = torch.randn(5, 7) if masked else None
    expected = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
    torch.testing.assert_close(attention(query, key, value, attn_mask=mask, scale=scale), expected)


def test_attention_refuses_what_it_does_not_compute():
    with pytest.raises(NotImplementedError, match="is_causal"):
        attention(*torch.randn(3, 1, 1, 4, 8), is_causal=True)


def test_graph_of_a_converted_module_is_fp16_with_fp32_islands(tmp_path):
    module = Small()
    to_half(module)
    report = export(module, tmp_path / "model.onnx")
    assert report["LayerNormalization"] == {"FLOAT": 1} and report["Softmax"] == {"FLOAT": 1}
    check_precision(report, "fp16")
    with pytest.raises(PrecisionError, match="fp32: expected all products in FLOAT, "):
        check_precision(report, "fp32")


def test_one_product_in_fp32_is_noticed(tmp_path):
    """RTX 20 has none: the whole graph would be refused there."""
    module = Small()
    to_half(module, keep_fp32=("time",))
    with pytest.raises(PrecisionError, match="all products in FLOAT16, got "):
        check_precision(export(module, tmp_path / "model.onnx"), "fp16")


def test_a_graph_that_is_fp32_by_accident_is_no_fp16_graph(tmp_path):
    report = export(Small(), tmp_path / "model.onnx")
    check_precision(report, "fp32")
    with pytest.raises(PrecisionError, match=r"got {'FLOAT': 2}"):
        check_precision(report, "fp16")


def test_a_softmax_in_half_is_noticed(tmp_path):
    class Naive(Small):
        def forward(self, x):
            return tuple(output.float() for output in super().forward(x.half()))

    with pytest.raises(PrecisionError, match=r"Softmax.*FLOAT16"):
        check_precision(export(Naive().half(), tmp_path / "model.onnx"), "fp16")


@pytest.mark.parametrize("component", COMPONENTS)
def test_fp32_artifacts_compute_in_fp32(tiny_fp32, component):
    check_precision(precision_report(tiny_fp32 / component / ONNX_FILE), "fp32")


@pytest.mark.parametrize("component", [FACE_ENCODER, DENOISER])
def test_fp16_artifacts_compute_in_fp16(micro_fp16, component):
    report = precision_report(micro_fp16 / component / ONNX_FILE)
    check_precision(report, "fp16")
    assert sum(report["LayerNormalization"].values()) > 0 and sum(report["Softmax"].values()) > 0


def test_the_denoisers_time_is_not_rounded_to_half():
    """Between 512 and 1024 halves are 0.5 apart; schedules have times between. Its sinusoids are FP32, so they tell them apart."""
    signature = components(MICRO)[DENOISER]
    arrays = example_inputs(MICRO, signature, {"rows": 1, "latent_height": 8, "latent_width": 8})
    module = build(MICRO, DENOISER)
    latents, timestep, *others = (torch.from_numpy(array) for array in arrays.values())
    times = [timestep.fill_(value).clone() for value in (700.0, 700.2)]
    with torch.no_grad():
        expected = [module(latents, time, *others)[0] for time in times]
        to_half(module)
        found = [module(latents, time, *others)[0] for time in times]
    step = expected[1] - expected[0]
    similarity = functional.cosine_similarity((found[1] - found[0]).flatten(), step.flatten(), dim=0)
    assert similarity > 0.9


# ------------------------------------------------------------------------------------------------------------ VAE's range
HALVES = pytest.mark.parametrize("component", [VAE_ENCODER, VAE_DECODER])


def loud(component):
    """Half of a VAE whose residual stream exceeds half precision's largest value, as SDXL's does."""
    module = build(MICRO, component)
    later = module.encoder.down_blocks if component == VAE_ENCODER else module.decoder.up_blocks
    with torch.no_grad():
        for layer in (module.stream.conv_in, later[1].resnets[0].conv2):
            layer.weight.mul_(1e5)
    sizes = both_sides(MICRO, {"images": 1, "latent_height": 9, "latent_width": 8})
    (array,) = example_inputs(MICRO, components(MICRO)[component], sizes).values()
    given = torch.from_numpy(array)
    with torch.no_grad():
        return module, given, module(given)


@HALVES
def test_without_scaling_a_loud_half_of_a_vae_overflows(component):
    module, given, _ = loud(component)
    to_half(module)
    with torch.no_grad():
        assert not module(given)[0].isfinite().all()


@HALVES
def test_scaled_to_fit_it_agrees_in_half(component):
    module, given, expected = loud(component)
    fit_half_range(module, [(given,)])
    scale, largest = module.notes["activation_scale"], module.notes["largest_activation"]
    assert largest > 65504 and largest * scale < 65504 / 10
    to_half(module)
    with torch.no_grad():
        found = module(given)
    for one, other in zip(found, expected, strict=True):
        assert other.std() > 1e-3
        torch.testing.assert_close(one, other, rtol=0, atol=2e-2 * float(other.abs().max()))


@HALVES
def test_scaling_changes_nothing_in_fp32(component):
    module, given, expected = loud(component)
    shrink_activations(module.stream, 2.0**-10)
    with torch.no_grad():
        for one, other in zip(module(given), expected, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


@HALVES
def test_what_is_within_range_is_left_alone(component):
    module = build(MICRO, component)
    before = copy.deepcopy(module.state_dict())
    given = torch.rand(1, 3, 64, 64) if component == VAE_ENCODER else torch.randn(1, 4, 8, 8)
    fit_half_range(module, [(given,)])
    assert module.notes["activation_scale"] == 1.0
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
