"""Memory planning: counted from graphs, held against a card, refused in words."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from export.__main__ import main
from export.graph import GraphError
from export.graph_shapes import concrete, find
from export.live_memory import ONNX_RUNTIME, TENSORRT, peak_bytes, weight_bytes
from export.plan import make_plan, refusal
from faceclip_serving.profiles import PROFILE_NAMES, profile_of, profiles
from faceclip_serving.sdxl_variants import SDXL
from faceclip_serving.signatures import COMPONENTS, DENOISER, TEXT_ENCODER, VAE_DECODER

NOWHERE = Path("no-such-folder")
CARDS = [name for name, profile in profiles(SDXL).items() if profile.gpu_bytes is not None]


def graph(*nodes, half=False):
    """x [rows, 4] through `nodes` to the last one's output, all of that shape; a weight [4, 4]."""
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    made = [helper.make_tensor_value_info(node.output[0], kind, ["s0", 4]) for node in nodes]
    weight = helper.make_tensor("w", kind, [4, 4], [0.0] * 16)
    given = helper.make_tensor_value_info("x", kind, ["rows", 4])
    return helper.make_model(helper.make_graph(nodes, "g", [given], [made[-1]], [weight], value_info=made[:-1]))


def node(operator, inputs, output):
    return helper.make_node(operator, inputs.split(), [output])


ROW = 4 * 4
"""Bytes of one row of FP32."""


@pytest.mark.parametrize(
    ("nodes", "rows"),
    [
        ([node("Identity", "x", "a"), node("MatMul", "a w", "b")], 2),
        ([node("MatMul", "x w", "a"), node("Relu", "a", "b"), node("Relu", "b", "c")], 2),  # in place, after x is gone
        ([node("Relu", "x", "a"), node("MatMul", "x w", "b"), node("Add", "a b", "c")], 3),  # x is still read: not in place
        ([node("MatMul", "x w", "a"), node("MatMul", "a w", "b"), node("Add", "a b", "c")], 2),
        ([node("MatMul", "x w", "a"), node("MatMul", "x w", "b"), node("Add", "a b", "c")], 3),
    ],
)
def test_a_tensor_lives_until_it_is_read_for_the_last_time(nodes, rows):
    assert peak_bytes(concrete(graph(*nodes), {"rows": 5}), replace(ONNX_RUNTIME, arena=1)) == rows * 5 * ROW


def test_precision_and_runtime_decide_the_bytes_of_a_number():
    nodes = [node("MatMul", "x w", "a"), node("Softmax", "a", "b")]
    single, half = (concrete(graph(*nodes, half=each), {"rows": 2}) for each in (False, True))
    assert peak_bytes(single, ONNX_RUNTIME) == 2 * peak_bytes(half, ONNX_RUNTIME)
    assert peak_bytes(half, replace(ONNX_RUNTIME, half_bits=32)) == peak_bytes(single, ONNX_RUNTIME)
    assert peak_bytes(single, TENSORRT) == peak_bytes(half, TENSORRT) < peak_bytes(half, ONNX_RUNTIME)
    assert (weight_bytes(single, ONNX_RUNTIME), weight_bytes(half, ONNX_RUNTIME)) == (64, 32)
    assert weight_bytes(half, ONNX_RUNTIME, matrix_bits=8) == 16


def test_sizes_must_be_given_and_shapes_must_follow_from_them():
    model = graph(node("MatMul", "x w", "a"))
    with pytest.raises(GraphError, match=r"it has axes \['rows'\], sizes are given for \['faces'\]"):
        concrete(model, {"faces": 1})
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "__import__('os').getpid()"
    with pytest.raises(GraphError, match="does not follow"):
        concrete(model, {"rows": 1})


def test_recorded_graphs_are_those_of_the_full_size():
    """Parameters of SDXL's UNet as published, and of its decoder with the layer that leads to it."""
    sizes = {"rows": 1, "latent_height": 128, "latent_width": 128, "images": 1, "height": 1024, "width": 1024}
    counted = {
        name: sum(g.tensors[w].elements for w in g.weights if g.tensors[w].floating)
        for name in (DENOISER, VAE_DECODER)
        for g in [concrete(find("sdxl", name, NOWHERE), sizes)]
    }
    assert counted[DENOISER] == pytest.approx(2_567_463_684, rel=1e-3)
    assert counted[VAE_DECODER] == pytest.approx(49_490_199, rel=1e-3)


@pytest.mark.parametrize("name", CARDS)
def test_every_placement_of_sdxl_fits_its_card(name):
    plan = make_plan(SDXL, profile_of(SDXL, name), NOWHERE)
    assert plan.fits and set(plan.components) == set(COMPONENTS)
    assert plan.gpu_bytes > plan.components[DENOISER].weights > 5e9


@pytest.mark.parametrize("size", [(1024, 1024), (1152, 864), None])
def test_eight_gigabytes_hold_the_pictures_that_people_make(size):
    plan = make_plan(SDXL, profile_of(SDXL, "8gb"), NOWHERE, size)
    assert plan.gpu_bytes <= 7.5e9
    assert not plan.components[TEXT_ENCODER].on_gpu and plan.host_bytes > plan.components[TEXT_ENCODER].weights


def test_what_does_not_fit_is_refused_with_a_cure():
    profile = replace(profile_of(SDXL, "8gb"), vae_tile=0)
    plan = make_plan(SDXL, profile, NOWHERE)
    assert not plan.fits
    assert "the largest part is vae_decoder" in refusal(plan, plan.gpu_limit) and "vae_tile" in refusal(plan, plan.gpu_limit)


def test_the_command_prints_one_document(capsys):
    assert main(["plan", "--variant", "sdxl", "--placement", "8gb", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["fits"] and document["predicted_peak_gb"] <= 7.5 and set(document["components"]) == set(COMPONENTS)


def test_a_narrowed_variant_refuses_what_its_engines_cannot_hold():
    assert profile_of(SDXL, "8gb").narrowed(SDXL).limits.size == (256, 1152)
    assert profile_of(SDXL, "cpu").narrowed(SDXL) == SDXL
    with pytest.raises(ValueError, match="profile: 'sdxl' has no '9gb', only cpu"):
        profile_of(SDXL, "9gb")
    assert {"cpu", "8gb", "12gb", "16gb", "24gb", "datacenter"} <= set(PROFILE_NAMES)
