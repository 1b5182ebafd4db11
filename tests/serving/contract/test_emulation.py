"""Emulated placements as values; that they serve, tests/end_to_end/placed.py says."""

from export.onnx.wanted import PRECISIONS
from faceclip_serving.contract.placements import CPU, placements
from faceclip_serving.contract.variants.flux import TINY_FLUX
from faceclip_serving.contract.variants.table import VARIANTS
from tests.end_to_end import test_placements_flux, test_placements_sdxl


def test_every_family_is_served_in_the_tests():
    served = {module.TestPlacements.variant.architecture.__class__ for module in (test_placements_flux, test_placements_sdxl)}
    assert served == {type(variant.architecture) for variant in VARIANTS.values()}


def test_an_emulated_placement_keeps_all_but_the_runtime():
    for variant in VARIANTS.values():
        for placement in placements(variant).values():
            emulated = placement.emulate()
            assert (emulated == placement) == (placement == CPU)
            assert emulated.label == (placement.name if placement == CPU else f"{placement.name}-emulated")
            for name, real in placement.components.items():
                there = emulated.components[name]
                assert there.precision == real.precision
                assert there == real if real.runtime.instance_kind == "KIND_CPU" else there.stands_for == real
            narrowed = (placement.narrowed(variant), emulated.narrowed(variant))
            assert narrowed[0] == narrowed[1]


def test_a_precision_without_a_file_is_replaced_and_told():
    placement = placements(TINY_FLUX)["16gb"]
    foreign = {name: each.precision for name, each in placement.components.items() if each.precision not in PRECISIONS}
    assert foreign == {"denoiser": "fp8"}
    told = placement.emulate({"denoiser": "fp16"}).emulated["denoiser"]
    assert told == "fp16 on ort-cpu for fp8 on trt-rtx"
