"""Memory planning: counted from graphs, held against a card, refused in words."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.measure.report import RESULTS
from export.__main__ import main
from export.forecast.forecast import ONLY_WHILE_USED, predict, refusal, table
from export.forecast.shapes import concrete, find
from export.onnx.errors import GraphError
from export.onnx.wanted import WEIGHT_BITS
from faceclip_serving.contract.names import COMPONENTS, DENOISER, TEXT_ENCODER, VAE_DECODER, VAE_ENCODER
from faceclip_serving.contract.placements import PLACEMENT_NAMES, PlacementError, placement_of, placements
from faceclip_serving.contract.variants.flux import FLUX
from faceclip_serving.contract.variants.sdxl import SDXL
from faceclip_serving.contract.variants.table import VARIANTS

NOWHERE = Path("no-such-folder")
TEXTS_FIXED = "activations as a plan with text_tokens fixed at the smallest has them"
CARDS = [name for name, placement in placements(SDXL).items() if placement.gpu_bytes is not None]


def test_sizes_must_be_given_and_shapes_must_follow_from_them():
    model = find("sdxl", DENOISER, NOWHERE)
    with pytest.raises(
        GraphError,
        match=r"it has axes \['latent_height', 'latent_width', 'rows', 'text_tokens'\], sizes are given for \['faces'\]",
    ):
        concrete(model, {"faces": 1})
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "__import__('os').getpid()"
    with pytest.raises(GraphError, match="does not follow"):
        concrete(model, {"rows": 1, "text_tokens": 77, "latent_height": 8, "latent_width": 8})


def test_recorded_graphs_are_those_of_the_full_size():
    """Parameters of SDXL's UNet as published, and of its VAE's halves, each with the layer between it and the latents."""
    sizes = {
        "rows": 1,
        "text_tokens": 77,
        "latent_height": 128,
        "latent_width": 128,
        "images": 1,
        "height": 1024,
        "width": 1024,
    }
    counted = {
        name: sum(g.tensors[w].elements for w in g.weights if g.tensors[w].floating)
        for name in (DENOISER, VAE_DECODER, VAE_ENCODER)
        for g in [concrete(find("sdxl", name, NOWHERE), sizes)]
    }
    assert counted[DENOISER] == pytest.approx(2_567_463_684, rel=1e-3)
    assert counted[VAE_DECODER] == pytest.approx(49_490_199, rel=1e-3)
    assert counted[VAE_ENCODER] == pytest.approx(34_163_664, rel=1e-3)


@pytest.mark.proof
@pytest.mark.parametrize("name", CARDS)
def test_every_placement_of_sdxl_fits_its_card(name):
    found = predict(SDXL, placement_of(SDXL, name), NOWHERE)
    assert found.fits and set(found.components) == set(COMPONENTS)
    least = 2.5e9 if found.components[DENOISER].execution.precision in WEIGHT_BITS else 5e9
    on_card = sum(need.on_card for need in found.components.values() if need.on_gpu)
    assert found.components[DENOISER].weights > least and found.gpu_bytes > on_card > 2.5e9


def test_a_card_of_six_gigabytes_streams_nothing_where_weights_are_integers():
    streamed, whole = (predict(SDXL, placement_of(SDXL, name), NOWHERE) for name in ("6gb", "6gb-int8w"))
    assert streamed.placement.gpu_bytes == whole.placement.gpu_bytes and whole.gpu_bytes < streamed.gpu_bytes
    assert streamed.components[DENOISER].streamed > 1.3e9
    assert not any(need.streamed for need in whole.components.values())
    assert whole.components[DENOISER].compiler and whole.components[DENOISER].notes == (TEXTS_FIXED,)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda variant: variant.name)
def test_on_small_cards_a_picture_that_comes_in_costs_no_memory_of_the_card(variant):
    small = [placement for placement in placements(variant).values() if placement.gpu_bytes and placement.gpu_bytes < 12e9]
    assert small
    for placement in small:
        found = predict(variant, placement, NOWHERE)
        need = found.components[VAE_ENCODER]
        assert not need.on_gpu and need.notes == (ONLY_WHILE_USED,) and ONLY_WHILE_USED in table(found)
        assert need.weights > 0 and need.activations > 0, "its line says what host memory it takes then"


@pytest.mark.proof
@pytest.mark.parametrize("name", placements(FLUX))
def test_every_placement_of_flux_fits_its_card_and_takes_its_default_size(name):
    placement = placement_of(FLUX, name)
    assert predict(FLUX, placement, NOWHERE).fits
    narrowed = placement.narrowed(FLUX)
    assert narrowed.defaults.height <= narrowed.limits.height[1] and narrowed.defaults.width <= narrowed.limits.width[1]


def test_flux_is_refused_on_eight_gigabytes_because_of_its_weights(capsys):
    assert main(["plan", "--variant", "flux", "--placement", "8gb", "--json"]) == 1
    assert "its weights alone are more than the card" in capsys.readouterr().err


@pytest.mark.parametrize("size", [(1024, 1024), (1152, 864), None])
def test_eight_gigabytes_hold_the_pictures_that_people_make(size):
    found = predict(SDXL, placement_of(SDXL, "8gb"), NOWHERE, size)
    assert found.gpu_bytes <= 7.5e9
    assert not found.components[TEXT_ENCODER].on_gpu and found.host_bytes > found.components[TEXT_ENCODER].weights


def test_what_does_not_fit_is_refused_with_a_cure():
    placement = replace(placement_of(SDXL, "8gb"), vae_tile=0)
    found = predict(SDXL, placement, NOWHERE)
    assert not found.fits
    assert "the largest part is vae_decoder" in refusal(found) and "vae_tile" in refusal(found)


CARD_RUNS = json.loads((RESULTS / "denoiser-gpu-ort.json").read_text())
FORMS = {"attention written out": "gpu-triton-ort", "MultiHeadAttention": "gpu-ort"}
"""Form of the denoiser -> a placement that runs it."""
CASES = [
    (variant, form, case)
    for variant in ("sdxl", "nano")
    for form, found in CARD_RUNS[variant].items()
    for case in found["cases"]
    if case["latent_height"] >= VARIANTS[variant].latent_height.min
]


@pytest.mark.parametrize(
    ("variant", "form", "case"), CASES, ids=[f"{v}-{form}-{c['rows']}x{c['latent_height']}" for v, form, c in CASES]
)
def test_what_a_card_held_is_forecast_and_not_much_more(variant, form, case):
    """The denoiser alone in a process, on ONNX Runtime with CUDA. Both sides: the context, weights, and the arena's growth until then."""
    known = VARIANTS[variant]
    size = tuple(case[axis] * known.latent_scale for axis in ("latent_height", "latent_width"))
    placement = replace(placement_of(known, FORMS[form]), denoiser_rows=case["rows"])
    found = predict(known, placement, NOWHERE, size)
    alone = replace(found, components={DENOISER: found.components[DENOISER]})
    assert case["held_bytes"] <= alone.gpu_bytes <= 1.3 * case["held_bytes"]


def test_a_card_was_asked_for_few_and_many_rows_of_both_forms():
    asked = {(variant, form, case["rows"]) for variant, form, case in CASES}
    assert asked >= {("sdxl", form, rows) for form in FORMS for rows in (2, 8)}


def test_what_a_server_held_on_a_card_is_forecast():
    served = json.loads((RESULTS / "full-size-gpu-ort.json").read_text())
    side = served["side"]
    found = predict(SDXL, replace(placement_of(SDXL, served["placement"]), denoiser_rows=2), NOWHERE, (side, side))
    assert found.gpu_bytes >= served["gpu_peak_bytes"]


@pytest.mark.proof
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda variant: variant.name)
def test_a_denoiser_with_attention_as_one_operator_needs_less(variant):
    """Its scores are never written down."""
    written_out, fused = (
        predict(variant, placement_of(variant, name), NOWHERE).components[DENOISER] for name in FORMS.values()
    )
    assert fused.weights <= written_out.weights and fused.activations < written_out.activations


def test_the_command_prints_one_document(capsys):
    assert main(["plan", "--variant", "sdxl", "--placement", "8gb", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["fits"] and document["predicted_peak_gb"] <= 7.5 and set(document["components"]) == set(COMPONENTS)


def test_a_narrowed_variant_refuses_what_its_engines_cannot_hold():
    assert placement_of(SDXL, "8gb").narrowed(SDXL).limits.largest == (1152, 1152)
    assert placement_of(SDXL, "cpu").narrowed(SDXL) == SDXL
    with pytest.raises(PlacementError, match="placement: 'sdxl' has no '9gb', only cpu"):
        placement_of(SDXL, "9gb")
    assert {"cpu", "8gb", "12gb", "16gb", "24gb", "datacenter"} <= set(PLACEMENT_NAMES)


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ("4096x4096", "latent_height: expected a multiple of 8 from 256 to 1152 pixels, got 4096"),
        ("1000x1001", "latent_width: expected a multiple of 8 from 256 to 1152 pixels, got 1001"),
        ("0x0", "latent_height: expected a multiple of 8 from 256 to 1152 pixels, got 0"),
    ],
)
def test_pictures_that_nobody_can_ask_for_are_refused_as_engines_refuse_them(size, words, capsys, tmp_path):
    chosen = ["--variant", "sdxl", "--placement", "8gb", "--largest", size, "--components", str(tmp_path)]
    assert main(["forecast", *chosen]) == main(["engine", *chosen, "--component", DENOISER]) == 1
    out, err = capsys.readouterr()
    forecast, engine = err.splitlines()
    assert not out and forecast == f"error: largest: placement '8gb' of 'sdxl': {words}" and engine == f"error: {words}"


def test_placements_that_serve_no_such_pictures_are_left_out_of_the_list(capsys):
    assert main(["forecast", "--variant", "sdxl", "--largest", "1344x1344", "--json"]) == 1, "some do not fit"
    out, err = capsys.readouterr()
    shown = {each["placement"] for each in json.loads(out)}
    serving = {name for name, placement in placements(SDXL).items() if (placement.largest_side or 1344) >= 1344}
    assert shown == serving < placements(SDXL).keys() and err.count("left out: ") == len(placements(SDXL)) - len(serving)


@pytest.mark.parametrize("size", ["1152", "1152x", "axb", "-8x8", "8x8x8"])
def test_a_size_of_another_form_is_told_the_form(size, capsys):
    with pytest.raises(SystemExit):
        main(["forecast", f"--largest={size}"])
    assert f"argument --largest: expected HEIGHTxWIDTH in pixels, e.g. 1152x864, got '{size}'" in capsys.readouterr().err
