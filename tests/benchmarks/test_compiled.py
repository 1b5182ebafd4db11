"""What TensorRT for RTX is asked and what it answered; where it is installed, it compiles a real graph for RTX 20."""

import argparse
from pathlib import Path

import pytest

from benchmarks.memory import compiled
from export.engine.build import target_of
from export.engine.shapes import engine_bounds, shape_ranges
from export.onnx.export import export_component
from export.onnx.wanted import Export
from faceclip_serving.contract.placements import ONNX_FILE, TRT_RTX
from faceclip_serving.contract.sdxl import SDXL
from faceclip_serving.contract.signatures import DENOISER, FACE_ENCODER, VAE_DECODER, components
from tests.export.micro import MICRO


def asked(tmp_path: Path, *given: str) -> list[compiled.Case]:
    for component in (FACE_ENCODER, DENOISER, VAE_DECODER):
        (tmp_path / "fp16" / component).mkdir(parents=True)
        (tmp_path / "fp16" / component / ONNX_FILE).touch()
    parser = argparse.ArgumentParser()
    compiled.add_arguments(parser)
    chosen = [f"--component={component}" for component in (FACE_ENCODER, DENOISER, VAE_DECODER)]
    return list(compiled.cases(parser.parse_args(["--components", str(tmp_path), *chosen, *given])))


def test_every_choice_is_a_build_of_its_own_with_its_largest_shapes(tmp_path):
    found = asked(tmp_path, "--rows", "1,4", "--tiles", "32,0", "--largest", "1152x896", "--sm", "75,120")
    assert [(case.component, case.choice) for case in found] == [
        (FACE_ENCODER, {}), (DENOISER, {"rows": 1}), (DENOISER, {"rows": 4}), (VAE_DECODER, {"tile": 32}), (VAE_DECODER, {"tile": 0}),
    ]  # fmt: skip
    assert [case.shapes["latents"][2] for case in found[1:]] == [
        (1, 4, 144, 112), (4, 4, 144, 112), (1, 4, 32, 32), (SDXL.limits.num_images_per_prompt, 4, 144, 112),
    ]  # fmt: skip


def test_a_graph_that_is_missing_is_named_with_the_command_that_makes_it(tmp_path):
    with pytest.raises(
        compiled.CompiledError, match=r"text_encoder/model.onnx; make it with `python -m export onnx --variant sdxl"
    ):
        asked(tmp_path, "--component", "text_encoder")


@pytest.fixture(scope="module")
def denoisers(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("compiled")
    for precision in ("fp16", "fp32"):
        export_component(Export(MICRO, DENOISER, precision), folder / precision)
    return {precision: folder / precision / ONNX_FILE for precision in ("fp16", "fp32")}


def test_rtx_20_takes_fp16_graphs_and_refuses_fp32_products_by_name(denoisers):
    """In one plan with RTX 30, 40 and 50."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX exists on Linux, x86-64, alone")
    target = target_of(TRT_RTX, [75, 86, 89, 120])
    limits = engine_bounds(MICRO, DENOISER, 2)
    shapes = shape_ranges(components(MICRO)[DENOISER], limits)
    taken, refused = (
        compiled.built(compiled.Case(DENOISER, limits, {"rows": 2}, denoisers[precision], shapes), MICRO, target)
        for precision in ("fp16", "fp32")
    )
    assert taken["plan_bytes"] > taken["weight_bytes"] > 0 and taken["activation_bytes"] > 0
    assert "SM75" in refused["refused"] and "FP32 GEMM is not supported" in refused["refused"]
