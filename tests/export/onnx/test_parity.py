"""The judge itself: cases cover what they should, and each kind of fault is found."""

import math
from dataclasses import replace

import numpy as np
import pytest

from export.networks.components import build
from export.onnx.example_inputs import example_inputs
from export.onnx.parity import Case, Finding, ParityError, cases, compare, compare_alone, onnx_run, require, torch_run
from export.onnx.wanted import traced_bounds
from faceclip_serving.contract.components import TEXT_TOKENS, bounds, components, multiples
from faceclip_serving.contract.names import COMPONENTS, DENOISER, FACE_ENCODER, TEXT_ENCODER
from faceclip_serving.contract.placements import ONNX_FILE, ORT_CPU
from faceclip_serving.contract.variants.sdxl import SDXL, TINY_SDXL
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.models.onnx_component import OnnxComponent

SIGNATURES = components(TINY_SDXL)
FACES = SIGNATURES[FACE_ENCODER]


def face_case(faces=3):
    inputs = example_inputs(TINY_SDXL, FACES, {"faces": faces})
    brightness = np.linspace(0.2, 1.0, faces, dtype=np.float32).reshape(-1, 1, 1, 1)
    return Case({"faces": faces}, {"aligned_faces": inputs["aligned_faces"] * brightness})


def echo(arrays):
    """A stand-in for a face encoder: outputs of the declared shapes that depend on each picture alone."""
    means = arrays["aligned_faces"].mean((1, 2, 3))
    scale = np.arange(1, 33, dtype=np.float32)
    shapes = {tensor.name: tensor.shape({"faces": len(means)}) for tensor in FACES.outputs}
    return {name: np.resize(scale, shape) * means.reshape(-1, *[1] * (len(shape) - 1)) for name, shape in shapes.items()}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda variant: variant.name)
def test_cases_stay_in_bounds_and_cover_odd_and_unequal_sides_and_batches(variant):
    signatures, limits = components(variant), traced_bounds(variant)
    for component in COMPONENTS:
        for case in cases(variant, signatures[component], limits[component]):
            signatures[component].check_inputs(case.inputs, limits[component])
    of = multiples(variant)
    sides = [
        tuple(c.sizes[axis] // of[axis] for axis in ("latent_height", "latent_width"))
        for c in cases(variant, signatures[DENOISER], limits[DENOISER])
    ]
    assert any(h % 2 and w % 2 for h, w in sides) and any(h > w for h, w in sides) and any(h < w for h, w in sides)
    assert {c.sizes["rows"] for c in cases(variant, signatures[DENOISER], limits[DENOISER])} == {1, 2, 3}
    texts = {
        c.sizes[TEXT_TOKENS] // of[TEXT_TOKENS]
        for c in cases(variant, signatures[DENOISER], limits[DENOISER])
        if TEXT_TOKENS in c.sizes
    }
    assert texts == ({1, 3, 6} if variant.limits.chunks > 1 else set())
    choices = [c.inputs["face_index"].ravel().tolist() for c in cases(variant, signatures[TEXT_ENCODER], limits[TEXT_ENCODER])]
    assert any(-1 in row and max(row) > 0 for row in choices)


def test_example_inputs_are_what_their_declarations_promise():
    sizes = {"faces": 2, "rows": 3, "latent_height": 8, "latent_width": 16}
    text = example_inputs(TINY_SDXL, SIGNATURES[TEXT_ENCODER], sizes)
    np.testing.assert_allclose(np.linalg.norm(text["class_token"], axis=-1), 1.0, rtol=1e-6)
    assert text["face_index"].ravel().tolist() == [1, 0, -1]
    (tokens,) = TINY_SDXL.tokens
    ids = text["input_ids"]
    assert (
        (ids[:, 0] == tokens.begin).all() and (ids.max(1) == tokens.end).all() and ids[:, -1].tolist() == [tokens.padding] * 3
    )
    assert [(row[: tokens.identity_window] == tokens.identity_token).sum() for row in ids] == [1, 0, 1]
    step = example_inputs(TINY_SDXL, SIGNATURES[DENOISER], sizes)
    assert len(set(step["timestep"].ravel())) == 3 and (step["timestep"] < 1000).all()
    assert step["time_ids"][2].tolist() == [64, 128, 0, 0, 64, 128]


def test_equal_outputs_have_no_error():
    case = face_case()
    found = compare("check", echo, FACES, [(case, echo(case.inputs))])
    assert [f.error for f in found] == [0.0, 0.0] and [f.tensor for f in found] == [t.name for t in FACES.outputs]
    require(found, FACE_ENCODER, "fp32", 1e-6)


def test_one_wrong_element_is_found_and_named():
    case = face_case()
    reference = echo(case.inputs)
    reference["patch_token"][2, 1, 143, 47] *= 1.5
    with pytest.raises(
        ParityError, match=r"face_encoder in fp32: tensor 'patch_token', case 'faces=3' .check.: error .* tolerance 1e-04"
    ):
        require(compare("check", echo, FACES, [(case, reference)]), FACE_ENCODER, "fp32", 1e-4)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_an_error_at_any_tolerance(value):
    case = face_case()

    def broken(arrays):
        outputs = echo(arrays)
        outputs["class_token"][0, 0, 0] = value
        return outputs

    found = compare("check", broken, FACES, [(case, echo(case.inputs))])
    with pytest.raises(ParityError, match="class_token"):
        require(found, FACE_ENCODER, "fp16", 1e9)


def test_an_error_that_is_not_a_number_does_not_pass():
    with pytest.raises(ParityError):
        require([Finding("check", "case", "tensor", math.nan, 0.0)], FACE_ENCODER, "fp32", 1.0)


def test_a_row_that_sees_its_neighbours_is_found():
    def leaking(arrays):
        return echo({"aligned_faces": arrays["aligned_faces"] + 0.01 * arrays["aligned_faces"].mean(0)})

    assert max(f.error for f in compare_alone(echo, FACES, face_case())) < 1e-6
    assert max(f.error for f in compare_alone(leaking, FACES, face_case())) > 1e-4


def test_rows_alone_keep_all_faces():
    """Only tensors with the batch axis are cut: a row's face may be any of the request's."""
    signature, seen = SIGNATURES[TEXT_ENCODER], []

    def record(arrays):
        seen.append({name: len(array) for name, array in arrays.items()})
        sizes = {"rows": len(arrays["input_ids"])}
        return {tensor.name: np.ones(tensor.shape(sizes), np.float32) for tensor in signature.outputs}

    sizes = {"faces": 2, "rows": 3}
    compare_alone(record, signature, Case(sizes, example_inputs(TINY_SDXL, signature, sizes)))
    assert seen[1] == {"input_ids": 1, "face_index": 1, "class_token": 2, "patch_token": 2}


def test_an_artifact_agrees_as_the_server_runs_it_at_sizes_that_the_export_did_not_try(tiny_fp32):
    signature, limits = SIGNATURES[DENOISER], bounds(TINY_SDXL, 8)[DENOISER]
    sizes = {"rows": 4, "latent_height": 15, "latent_width": 10}
    case = Case(sizes, example_inputs(TINY_SDXL, signature, sizes, salt="other"))
    reference = torch_run(build(TINY_SDXL, DENOISER), signature)(case.inputs)
    served = OnnxComponent(tiny_fp32 / DENOISER / ONNX_FILE, signature, ORT_CPU.providers, limits, threads=2)
    require(compare("served", served.run, signature, [(case, reference)]), DENOISER, "fp32", 1e-4)


def test_an_artifact_of_other_weights_does_not_pass(tiny_fp32):
    signature = SIGNATURES[FACE_ENCODER]
    module = build(TINY_SDXL, FACE_ENCODER)
    module.encoder.branches[1].face_encoder.blocks[0].mlp.fc1.weight.data *= 1.5
    case = face_case(1)
    reference = torch_run(module, signature)(case.inputs)
    with pytest.raises(ParityError):
        require(
            compare("onnx", onnx_run(tiny_fp32 / FACE_ENCODER / ONNX_FILE, signature), signature, [(case, reference)]),
            FACE_ENCODER,
            "fp32",
            1e-4,
        )


def test_small_variants_and_full_size_have_the_same_cases():
    """The small variant takes every path of the big one."""
    for component in COMPONENTS:
        found = [cases(v, components(v)[component], bounds(v, 8)[component]) for v in (TINY_SDXL, replace(SDXL))]
        assert len({len(of_variant) for of_variant in found}) == 1
