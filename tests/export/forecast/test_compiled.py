"""What the compiler said, kept and found again: of the very plan, or of the nearest one, and then it says so."""

from dataclasses import replace

import pytest

from export.engine.record import Purpose
from export.forecast import compiled
from export.forecast.compiled import Build, figures, keep, read
from faceclip_serving.contract.names import DENOISER, VAE_DECODER
from faceclip_serving.contract.placements import placements
from faceclip_serving.contract.variants.table import VARIANTS

SIDES = {"latent_height": 144, "latent_width": 144}
TWO = Build(
    DENOISER, "fp16", {"rows": 2, **SIDES}, (75, 86, 89, 120), "tensorrt-rtx 1.7.1.116",
    activation_bytes=500, weight_bytes=5000, scratch_bytes=400, plan_bytes=5200, peak_host_bytes=17_000, seconds=100.0,
)  # fmt: skip


TEXTS_FIXED = "activations as a plan with text_tokens fixed at the smallest has them"
"""Long texts add little to them: keys and values of a few hundred tokens beside those of thousands of cells."""


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(compiled, "KEPT", tmp_path)


def test_a_build_of_this_very_plan_is_told_as_it_is(own_folder):
    keep("v", [TWO, replace(TWO, largest={"rows": 8, **SIDES}, activation_bytes=2100)])
    found = figures("v", DENOISER, "fp16", {"rows": 8, **SIDES})
    assert (found.activation_bytes, found.weight_bytes, found.compiler, found.notes) == (2100, 5000, TWO.compiler, ())


def test_what_was_never_compiled_is_scaled_from_the_nearest_and_says_so(own_folder):
    keep("v", [TWO, replace(TWO, largest={"rows": 8, **SIDES}, activation_bytes=2100)])
    found = figures("v", DENOISER, "fp16", {"rows": 16, "latent_height": 144, "latent_width": 72})
    assert found.activation_bytes == 2100 and found.weight_bytes == 5000
    assert found.notes == ("activations scaled in proportion from a plan for rows 8, latent_height 144, latent_width 144",)
    assert figures("v", DENOISER, "fp16", {"rows": 3, **SIDES}).activation_bytes == 750


def test_a_plan_from_before_an_axis_could_vary_is_told_for_what_it_is(own_folder):
    keep("v", [TWO])
    found = figures("v", DENOISER, "fp16", {**TWO.largest, "text_tokens": 462})
    assert (found.activation_bytes, found.notes) == (500, (TEXTS_FIXED,))
    assert figures("v", DENOISER, "fp16", {"rows": 4, **SIDES, "text_tokens": 462}).activation_bytes == 1000
    keep("v", [replace(TWO, largest={**TWO.largest, "text_tokens": 462}, activation_bytes=510)])
    found = figures("v", DENOISER, "fp16", {**TWO.largest, "text_tokens": 462})
    assert (found.activation_bytes, found.notes) == (510, ())


def test_another_precision_lends_its_activations_alone(own_folder):
    keep("v", [TWO])
    found = figures("v", DENOISER, "fp8", TWO.largest)
    assert (found.activation_bytes, found.weight_bytes) == (500, None)
    assert found.notes == ("activations as a plan in fp16 has them",)
    keep("v", [replace(TWO, precision="fp8", largest={"rows": 4, **SIDES}, activation_bytes=1200, weight_bytes=2500)])
    assert figures("v", DENOISER, "fp8", TWO.largest).activation_bytes == 600, "the precision counts more than the size"
    assert figures("v", DENOISER, "fp8", TWO.largest).weight_bytes == 2500


def test_a_shortened_network_lends_no_weights(own_folder):
    keep("v", [replace(TWO, blocks=2)])
    found = figures("v", DENOISER, "fp16", TWO.largest)
    assert found.weight_bytes is None and found.notes == ("activations as a network of 2 blocks of each kind has them",)
    keep("v", [TWO])
    assert figures("v", DENOISER, "fp16", TWO.largest).notes == (), "the whole one is nearer"


def test_of_shortened_networks_of_one_size_the_one_with_most_blocks_is_told(own_folder):
    one, eight = replace(TWO, blocks=1), {"rows": 8, **SIDES}
    keep(
        "v",
        [replace(TWO, largest=eight, activation_bytes=2200, blocks=2), replace(one, largest=eight, activation_bytes=2000), one],
    )
    found = figures("v", DENOISER, "fp16", eight)
    assert found.activation_bytes == 2200 and found.notes == ("activations as a network of 2 blocks of each kind has them",)
    assert figures("v", DENOISER, "fp16", {"rows": 16, **SIDES}).activation_bytes == 4400, "scaled from it as well"
    found = figures("v", DENOISER, "fp16", TWO.largest)
    assert found.activation_bytes == 500 and found.notes == ("activations as a network of 1 block of each kind has them",)


def test_nothing_is_nothing(own_folder):
    assert read("v") == [] and figures("v", DENOISER, "fp16", TWO.largest) is None
    keep("v", [TWO])
    assert figures("v", VAE_DECODER, "fp16", {"images": 1, **SIDES}) is None


def test_a_later_build_of_the_same_plan_takes_the_place_of_the_earlier(own_folder):
    keep("v", [TWO])
    keep("v", [replace(TWO, activation_bytes=501, sm=(89,))])
    assert [each.activation_bytes for each in read("v")] == [501] and read("v")[0].sm == (89,)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_figures_of_every_plan_of_every_placement_are_kept(name):
    """Of the very plan, its precision and the whole network: where that is not so, the forecast says why, and docs/measured.md."""
    variant = VARIANTS[name]
    for placement in placements(variant).values():
        for component, execution in placement.components.items():
            if execution.runtime.package:
                limits = Purpose(variant, placement, component).bounds()
                found = figures(name, component, execution.precision, {axis: each.max for axis, each in limits.items()})
                assert found is not None, (placement.name, component)
                if name == "sdxl":
                    notes = (TEXTS_FIXED,) if component == DENOISER else ()
                    assert (found.notes, found.weight_bytes is None) == (notes, False), (placement.name, component)
