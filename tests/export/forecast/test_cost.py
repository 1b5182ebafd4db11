"""Work counted by hand against the counter, and the published work of SDXL's networks against the recorded graphs."""

from pathlib import Path

import pytest
from onnx import TensorProto, helper

from export.forecast.cost import graph_cost
from export.forecast.shapes import concrete, find
from tests.benchmarks.graphs import chain, model, value, weight

NOWHERE = Path("nowhere")


def cost_of(node, inputs, output, weights=()):
    return graph_cost(concrete(model([node], inputs, [output], weights), {}))


def test_matrix_products_of_a_chain_at_a_size():
    found = graph_cost(concrete(chain(), {"n": 3}))
    assert found.flops == 2 * 3 * 8 * 16 + 2 * 3 * 16 * 4
    assert found.parameters == 8 * 16 + 16 * 4
    assert found.weight_bytes == 4 * found.parameters
    assert found.boundary_bytes == 4 * (3 * 8 + 3 * 4)
    assert found.least_bytes == found.weight_bytes + found.boundary_bytes


def test_every_operator_reads_and_writes_in_the_traffic():
    found = graph_cost(concrete(chain(), {"n": 3}))
    x, w, a, v, y = 3 * 8, 8 * 16, 3 * 16, 16 * 4, 3 * 4
    assert found.traffic_bytes == 4 * ((x + w + a) + (a + a) + (a + v + y))


def test_wider_numbers_take_wider_bytes_and_no_more_products():
    half = model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [value("x", [2, 8], TensorProto.FLOAT16)],
        [value("y", [2, 4], TensorProto.FLOAT16)],
        [weight("w", [8, 4], TensorProto.FLOAT16)],
    )
    stored, computed = (graph_cost(concrete(half, {}), bits) for bits in (None, 32))
    assert (stored.weight_bytes, computed.weight_bytes) == (64, 128)
    assert stored.flops == computed.flops == 2 * 2 * 4 * 8
    assert computed.activation_peak_bytes == 2 * stored.activation_peak_bytes


def test_a_convolution_counts_its_groups_and_kernel():
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=2)
    found = cost_of(node, [value("x", [1, 8, 10, 10])], value("y", [1, 6, 8, 8]), [weight("w", [6, 4, 3, 3])])
    assert found.flops == 2 * (6 * 8 * 8) * (4 * 3 * 3)


def test_a_transposed_convolution_counts_what_it_spreads():
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"])
    found = cost_of(node, [value("x", [1, 8, 5, 5])], value("y", [1, 3, 6, 6]), [weight("w", [8, 3, 2, 2])])
    assert found.flops == 2 * (8 * 5 * 5) * (3 * 2 * 2)


@pytest.mark.parametrize(("transposed", "left"), [(0, [3, 8]), (1, [8, 3])])
def test_gemm_sums_over_the_inner_axis_however_it_is_stored(transposed, left):
    node = helper.make_node("Gemm", ["x", "w"], ["y"], transA=transposed)
    assert cost_of(node, [value("x", left)], value("y", [3, 5]), [weight("w", [8, 5])]).flops == 2 * 3 * 5 * 8


def test_attention_is_both_of_its_products():
    node = helper.make_node("Attention", ["q", "k", "v"], ["y"])
    shapes = {"q": [2, 4, 7, 16], "k": [2, 4, 9, 16], "v": [2, 4, 9, 32]}
    found = cost_of(node, [value(name, dims) for name, dims in shapes.items()], value("y", [2, 4, 7, 32]))
    assert found.flops == 2 * (2 * 4 * 7 * 9) * 16 + 2 * (2 * 4 * 7 * 9) * 32


def test_what_multiplies_nothing_costs_no_products():
    node = helper.make_node("Relu", ["x"], ["y"])
    assert cost_of(node, [value("x", [3])], value("y", [3])).flops == 0


def test_sdxl_at_1024_is_the_work_that_is_published():
    """6.76 TFLOP for the UNet, attention included; 10.5 for the decoder."""
    sizes = {
        "rows": 1,
        "text_tokens": 77,
        "images": 1,
        "latent_height": 128,
        "latent_width": 128,
        "height": 1024,
        "width": 1024,
    }
    denoiser, decoder = (graph_cost(concrete(find("sdxl", name, NOWHERE), sizes)) for name in ("denoiser", "vae_decoder"))
    assert denoiser.flops / 1e12 == pytest.approx(6.76, rel=0.01)
    assert denoiser.parameters / 1e9 == pytest.approx(2.567, rel=0.002)
    assert decoder.flops / 1e12 == pytest.approx(10.5, rel=0.02)
