"""What TensorRT for RTX is asked and what it answered; where it is installed, it compiles a real graph for RTX 20."""

import argparse
from dataclasses import replace

import onnx
import onnx_ir as ir
import pytest

from benchmarks.memory import compiled
from export.engine.build import target_of
from export.engine.record import Purpose
from export.engine.shapes import engine_bounds
from export.networks.components import ComponentError, network, unquantized
from export.onnx import graph
from export.onnx.eight_bit_factors import quantize_factors
from export.onnx.errors import ExportError
from export.onnx.integer_weights import quantize
from export.onnx.wanted import FACTOR_PRECISIONS, WEIGHT_BITS
from faceclip_serving.contract.components import TEXT_TOKENS
from faceclip_serving.contract.names import DENOISER, FACE_ENCODER, VAE_DECODER, VAE_ENCODER
from faceclip_serving.contract.placements import ONNX_FILE, TRT_RTX, placements
from faceclip_serving.contract.tensors import Range
from faceclip_serving.contract.variants.flux import FLUX, TINY_FLUX
from faceclip_serving.contract.variants.sdxl import SDXL, TINY_SDXL
from tests.export.micro import MICRO, MICRO_FLUX, exported


def asked(*given: str) -> list[compiled.Case]:
    parser = argparse.ArgumentParser()
    compiled.add_arguments(parser)
    return compiled.cases(parser.parse_args(list(given)))


def test_every_choice_is_a_build_of_its_own_with_its_largest_shapes():
    chosen = [f"--component={component}" for component in (FACE_ENCODER, VAE_ENCODER, DENOISER, VAE_DECODER)]
    found = asked(*chosen, "--rows", "1,4", "--tiles", "32,0", "--largest", "1152x896", "--sm", "75,120")
    pictures = SDXL.limits.num_images_per_prompt
    assert [(case.component, case.largest) for case in found] == [
        (FACE_ENCODER, {"faces": 4}),
        (VAE_ENCODER, {"images": 1, "height": 256, "width": 256}),
        (VAE_ENCODER, {"images": 1, "height": 1152, "width": 896}),
        (DENOISER, {"rows": 1, TEXT_TOKENS: 462, "latent_height": 144, "latent_width": 112}),
        (DENOISER, {"rows": 4, TEXT_TOKENS: 462, "latent_height": 144, "latent_width": 112}),
        (VAE_DECODER, {"images": 1, "latent_height": 32, "latent_width": 32}),
        (VAE_DECODER, {"images": pictures, "latent_height": 144, "latent_width": 112}),
    ]


@pytest.mark.parametrize("variant", [SDXL, TINY_SDXL, TINY_FLUX])
def test_by_default_every_plan_of_every_placement_once(variant):
    found = asked("--variant", variant.name)
    wanted = {
        (name, execution.precision, tuple(Purpose(variant, placement, name).bounds().items()))
        for placement in placements(variant).values()
        for name, execution in placement.components.items()
        if execution.runtime.package
    }
    assert {(case.component, case.precision, tuple(case.limits.items())) for case in found} <= wanted
    largest = [(case.component, case.precision, tuple(case.largest.items())) for case in found]
    assert len(set(largest)) == len(largest) == len({(c, p, tuple((a, r.max) for a, r in limits)) for c, p, limits in wanted})


@pytest.mark.proof
def test_a_graph_that_was_exported_is_taken_and_another_is_traced_where_that_is_possible(tmp_path):
    case = compiled.Case(FACE_ENCODER, "fp16", {"faces": Range(1, 1, 4)})
    exported = tmp_path / "exported" / "fp16" / FACE_ENCODER / ONNX_FILE
    exported.parent.mkdir(parents=True)
    exported.touch()
    assert compiled.graph_of(case, MICRO, tmp_path / "exported", tmp_path) == exported
    traced = compiled.graph_of(case, MICRO, tmp_path / "nothing", tmp_path)
    assert [tensor.name for tensor in onnx.load(traced, load_external_data=False).graph.input] == ["aligned_faces"]
    assert compiled.graph_of(case, MICRO, None, tmp_path) == traced
    with pytest.raises(ComponentError, match=r"component 'face_encoder' of variant 'micro-sdxl': no rules for 8 bits"):
        compiled.graph_of(replace(case, precision="fp8"), MICRO, tmp_path / "exported", tmp_path)
    with pytest.raises(ExportError, match=r"precision: expected one of fp32, .*, fp8, got 'fp12'"):
        compiled.graph_of(replace(case, precision="fp12"), MICRO, tmp_path / "exported", tmp_path)


def test_a_network_is_shortened_where_its_blocks_are_alike():
    short = compiled.shortened(FLUX, 1).architecture
    assert (short.transformer["num_layers"], short.transformer["num_single_layers"], short.text.layers) == (1, 1, 1)
    assert short.transformer["num_attention_heads"] == FLUX.architecture.transformer["num_attention_heads"]
    with pytest.raises(compiled.CompiledError, match="expected a variant of FLUX, whose blocks are all alike, got 'sdxl'"):
        compiled.shortened(SDXL, 1)


@pytest.mark.proof
def test_rtx_20_takes_fp16_graphs_and_refuses_fp32_products_by_name():
    """In one plan with RTX 30, 40 and 50."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX exists on Linux, x86-64, alone")
    target = target_of(TRT_RTX, [75, 86, 89, 120])
    limits = engine_bounds(MICRO, DENOISER, 2)
    taken, refused = (
        compiled.built(
            compiled.Case(DENOISER, precision, limits), MICRO, exported(MICRO, DENOISER, precision) / ONNX_FILE, target
        )
        for precision in ("fp16", "fp32")
    )
    assert taken["plan_bytes"] > taken["weight_bytes"] > 0 and taken["activation_bytes"] > 0
    assert "SM75" in refused["refused"] and "FP32 GEMM is not supported" in refused["refused"]


FEWER_BITS = {
    "int8w": ([75, 86, 89, 120], "FP16 x INT8"),
    "int4w": ([86, 89, 120], "FP16 x INT4"),
    "int8": ([75, 86, 89, 120], "INT8 x INT8"),
    "fp8": ([89, 120], "FP8 x FP8"),
}
"""Precision -> the cards that docs/quantisation.md names, in one plan, and what products are to read there."""


@pytest.mark.proof
@pytest.mark.parametrize("precision", [*WEIGHT_BITS, *FACTOR_PRECISIONS])
@pytest.mark.parametrize("variant", [MICRO, MICRO_FLUX], ids=lambda variant: variant.name)
def test_denoisers_of_fewer_bits_are_taken_by_the_cards_that_the_docs_name(variant, precision, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX exists on Linux, x86-64, alone")
    row, (cards, wanted) = network(variant, DENOISER), FEWER_BITS[precision]
    model = ir.load(exported(variant, DENOISER, "fp16") / ONNX_FILE)
    if precision in WEIGHT_BITS:
        quantize(model, WEIGHT_BITS[precision], row.keep_half, row.keep_eight(variant))
    else:
        quantize_factors(model, precision, unquantized(variant, DENOISER))
    graph.save(model, tmp_path)
    case = compiled.Case(DENOISER, precision, engine_bounds(variant, DENOISER, 2))
    taken = compiled.built(case, variant, tmp_path / ONNX_FILE, target_of(TRT_RTX, cards))
    assert taken["factors"][wanted] > 0, taken
