"""The comparison that `verify` makes, with ONNX Runtime on both sides: what agrees passes, what differs is found."""

import pytest

from export.engine.agreement import verify_cases, verify_run
from export.engine.shapes import Sizes, engine_bounds
from export.networks.components import network
from export.onnx import parity
from faceclip_serving.contract.components import TEXT_TOKENS, components
from faceclip_serving.contract.names import DENOISER, FACE_ENCODER
from faceclip_serving.contract.placements import ONNX_FILE
from faceclip_serving.contract.variants.sdxl import SDXL, TINY_SDXL
from faceclip_serving.contract.variants.table import VARIANTS

SIGNATURE = components(TINY_SDXL)[FACE_ENCODER]
LIMITS = engine_bounds(TINY_SDXL, FACE_ENCODER, 8)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda variant: variant.name)
@pytest.mark.parametrize(
    "sizes", [Sizes(), Sizes(only=(256, 384)), Sizes(only=(256, 384), static=True), Sizes(largest=(512, 512))]
)
def test_cases_fit_the_plan_and_its_usual_shape_is_among_them(variant, sizes):
    signature, limits = components(variant)[FACE_ENCODER], engine_bounds(variant, FACE_ENCODER, 8, sizes)
    found = verify_cases(variant, signature, limits)
    for case in found:
        signature.check_inputs(case.inputs, limits)
    assert {axis: size.opt for axis, size in limits.items()} in [dict(case.sizes) for case in found]
    assert len({case.name for case in found}) == len(found)


def test_a_static_plan_has_one_case():
    signature = components(TINY_SDXL)[DENOISER]
    limits = engine_bounds(TINY_SDXL, DENOISER, 8, Sizes(only=(192, 128), static=True))
    assert [case.sizes for case in verify_cases(TINY_SDXL, signature, limits)] == [
        {"rows": 2, TEXT_TOKENS: 77, "latent_height": 24, "latent_width": 16}
    ]


def test_the_same_graph_agrees_and_the_findings_say_where_they_come_from(tiny_fp32):
    path = tiny_fp32 / FACE_ENCODER / ONNX_FILE
    found = verify_run(TINY_SDXL, FACE_ENCODER, "fp32", path, LIMITS, parity.onnx_run(path, SIGNATURE))
    assert {finding["check"] for finding in found["findings"]} == {"tensorrt"}
    assert {finding["tensor"] for finding in found["findings"]} == {"class_token", "patch_token"}
    assert found["tolerance"] == network(TINY_SDXL, FACE_ENCODER).tolerance["fp32"]
    assert all(finding["error"] <= 1e-5 for finding in found["findings"])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda outputs: {name: values * 1.01 for name, values in outputs.items()}, "tensor '(class|patch)_token'.*tensorrt"),
        (lambda outputs: {**outputs, "patch_token": outputs["patch_token"] * float("nan")}, "tensor 'patch_token'.*inf"),
    ],
)
def test_an_engine_that_differs_is_refused(tiny_fp32, spoil, words):
    path = tiny_fp32 / FACE_ENCODER / ONNX_FILE
    run = parity.onnx_run(path, SIGNATURE)
    with pytest.raises(parity.ParityError, match=words):
        verify_run(TINY_SDXL, FACE_ENCODER, "fp32", path, LIMITS, lambda arrays: spoil(run(arrays)))


def test_the_full_size_usual_case_is_the_default_picture():
    signature, limits = components(SDXL)[DENOISER], engine_bounds(SDXL, DENOISER, 8)
    assert {axis: found.opt for axis, found in limits.items()} == {
        "rows": 2,
        TEXT_TOKENS: 77,
        "latent_height": 144,
        "latent_width": 108,
    }
    assert signature.inputs[0].shape({axis: found.opt for axis, found in limits.items()}) == (2, 4, 144, 108)
