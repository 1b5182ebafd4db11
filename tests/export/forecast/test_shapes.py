"""Shapes of a graph at a size: known ones of the recorded graphs, and what is refused."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from export.forecast.shapes import concrete, find
from export.onnx.errors import GraphError
from faceclip_serving.contract.components import TEXT_TOKENS, components
from faceclip_serving.contract.names import COMPONENTS, DENOISER, VAE_DECODER
from faceclip_serving.contract.variants.table import VARIANTS
from tests.benchmarks.graphs import chain

NOWHERE = Path("nowhere")
SIZES = {
    "rows": 2,
    TEXT_TOKENS: 77,
    "images": 3,
    "faces": 4,
    "latent_height": 128,
    "latent_width": 96,
    "height": 1024,
    "width": 768,
}


def made_by(operator, graph):
    return {graph.tensors[name].dims for node in graph.nodes if node.operator == operator for name in node.outputs}


def test_a_size_that_is_not_given_is_named():
    with pytest.raises(GraphError, match="'n'"):
        concrete(chain(), {"m": 3})


def test_a_graph_that_is_nowhere_says_how_to_make_it():
    with pytest.raises(GraphError, match="python -m export onnx --variant another --component denoiser"):
        find("another", "denoiser", NOWHERE)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda variant: variant.name)
@pytest.mark.parametrize("component", COMPONENTS)
def test_every_recorded_graph_has_the_shapes_of_its_signature_and_no_open_ones(variant, component):
    sizes = {**SIZES, TEXT_TOKENS: 3 * variant.text_tokens.max_tokens}
    graph, signature = concrete(find(variant.name, component, NOWHERE), sizes), components(variant)[component]
    for tensor in (*signature.inputs, *signature.outputs):
        assert graph.tensors[tensor.name].dims == tensor.shape(sizes)
    assert all(side > 0 for tensor in graph.tensors.values() for side in tensor.dims)


@pytest.mark.parametrize("full", ["sdxl", "flux"])
@pytest.mark.parametrize("component", COMPONENTS)
def test_recorded_graphs_of_a_family_store_their_weights_in_the_same_types(full, component):
    """Full-size graphs are the first to be left as they were when the export changes: `python -m export forecast --record`."""

    def types(variant):
        stored = {}
        for weight in find(variant, component, NOWHERE).graph.initializer:
            stored.setdefault(re.sub(r"\d+", "#", weight.name), set()).add(weight.data_type)
        return stored

    of_full, of_tiny = types(full), types(f"tiny-{full}")
    shared = [name for name in of_full.keys() & of_tiny.keys() if name.endswith((".weight", ".weight.transposed"))]
    assert shared and {name: of_full[name] for name in shared} == {name: of_tiny[name] for name in shared}


def test_convolutions_of_sdxl_halve_the_picture_twice_and_the_decoder_doubles_it_thrice():
    found = made_by("Conv", concrete(find("sdxl", DENOISER, NOWHERE), SIZES))
    levels = [(128, 96, {320, 640, 4}), (64, 48, {320, 640, 1280}), (32, 24, {640, 1280})]
    assert found == {(2, width, *side) for *side, widths in levels for width in widths}
    found = made_by("Resize", concrete(find("sdxl", VAE_DECODER, NOWHERE), SIZES))
    assert found == {(3, 512, 256, 192), (3, 512, 512, 384), (3, 256, 1024, 768)}


def test_attention_of_flux_is_over_the_text_and_patches_of_two_by_two_cells():
    tokens = 512 + 64 * 48
    assert made_by("Softmax", concrete(find("flux", DENOISER, NOWHERE), SIZES)) == {(2, 24, tokens, tokens)}


@pytest.mark.parametrize(("dim", "size"), [("4*n", 20), ("(n - 1)//2 + 1", 3), ("2*(n//2)*(n//2) + 7", 15)])
def test_a_size_within_a_graph_is_computed_from_its_axes(dim, size):
    graph = chain()
    graph.graph.value_info[1].type.tensor_type.shape.dim[0].dim_param = dim
    assert concrete(graph, {"n": 5}).tensors["b"].dims == (size, 16)


@pytest.mark.parametrize("dim", ["s0", "n**2", "-n", "n and m", "n n", "__import__('os').getpid()"])
def test_a_size_that_does_not_follow_from_the_axes_is_named(dim):
    graph = chain()
    graph.graph.value_info[1].type.tensor_type.shape.dim[0].dim_param = dim
    with pytest.raises(GraphError, match="does not follow"):
        concrete(graph, {"n": 5})


def test_a_forecast_needs_none_of_what_exporting_needs():
    heavy = "{'torch', 'onnxscript', 'onnx_ir'} & set(sys.modules)"
    code = f"import sys, export.forecast.forecast, export.forecast.cost; print({heavy})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found == "set()\n"
