"""Keep, rebuild, load or refuse: decided from what is written beside a plan."""

from dataclasses import replace

import pytest

from export.checkpoint.digests import sha256
from export.engine.errors import EngineError
from export.engine.options import Options
from export.engine.record import (
    RECORD,
    Machine,
    Measured,
    Purpose,
    Recipe,
    Record,
    check_plan,
    incompatibility,
    onnx_digests,
    read_record,
    reasons_to_build,
)
from export.engine.shapes import ALL_SIZES, Sizes, bounds_document
from faceclip_serving.contract.names import DENOISER, VAE_DECODER
from faceclip_serving.contract.placements import PLAN_FILE, placements
from faceclip_serving.contract.variants.sdxl import SDXL, TINY_SDXL
from faceclip_serving.contract.variants.table import VARIANTS

H200 = Machine("11.4.0.106", "NVIDIA H200", "9.0", "580.95.05")
PURPOSE = Purpose(SDXL, placements(SDXL)["24gb"].on("tensorrt"), DENOISER)
BOUNDS = bounds_document(PURPOSE.bounds())
MEASURED = Measured(12.5, 4_000_000_000, 557_000_000, 53_000_000, 5_151_000_000)
RECIPE = Recipe("sdxl", DENOISER, "fp16", {"model.onnx": "aa", "model.onnx.data": "bb"}, BOUNDS, Options())


@pytest.fixture
def folder(tmp_path):
    """A folder with a file in the place of a plan, and its record."""
    (tmp_path / PLAN_FILE).write_bytes(b"native code")
    Record(RECIPE, H200, 11, sha256(tmp_path / PLAN_FILE), MEASURED).write(tmp_path)
    return tmp_path


def rewrite(folder, **changes):
    record = read_record(folder)
    replace(record, **changes).write(folder)


def test_a_record_is_read_back_as_written(folder):
    assert read_record(folder) == Record(RECIPE, H200, 11, sha256(folder / PLAN_FILE), MEASURED)


def test_what_is_up_to_date_is_kept_and_a_new_driver_changes_nothing(folder):
    assert reasons_to_build(folder, RECIPE, H200) == []
    assert reasons_to_build(folder, RECIPE, replace(H200, driver="590.1")) == []


@pytest.mark.parametrize(
    ("recipe", "machine", "words"),
    [
        (replace(RECIPE, onnx={"model.onnx": "aa", "model.onnx.data": "cc"}), H200, "onnx changed"),
        (replace(RECIPE, bounds={"rows": [1, 2, 4]}), H200, f"bounds changed from {BOUNDS} to {{'rows': [1, 2, 4]}}"),
        (replace(RECIPE, sizes=Sizes(largest=(1024, 1024))), H200, "sizes changed from"),
        (replace(RECIPE, options=Options(refit=True)), H200, "options changed"),
        (replace(RECIPE, precision="fp32"), H200, "precision changed from fp16 to fp32"),
        (RECIPE, replace(H200, tensorrt="10.13.3.9"), "TensorRT changed from 11.4.0.106 to 10.13.3.9"),
        (RECIPE, replace(H200, gpu="NVIDIA H100 80GB HBM3"), "GPU changed from NVIDIA H200 to NVIDIA H100"),
    ],
)
def test_each_change_is_a_reason_to_build_and_is_told(folder, recipe, machine, words):
    (reason,) = reasons_to_build(folder, recipe, machine)
    assert words in reason


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"format": 0}', '{"format": 2, "recipe": {}}', '{"format": 2, "recipe": 3}']
)
def test_a_record_that_cannot_be_read_means_no_plan(folder, text):
    (folder / RECORD).write_text(text)
    assert read_record(folder) is None
    assert reasons_to_build(folder, RECIPE, H200) == ["there is no plan yet"]
    with pytest.raises(EngineError, match=r"expected model.plan.json beside it"):
        check_plan(folder, PURPOSE)


def test_an_absent_and_a_truncated_plan(folder, tmp_path_factory):
    with pytest.raises(
        EngineError,
        match=r"expected .*model.plan; build it here with `python -m export engine --variant sdxl --pl",
    ):
        check_plan(tmp_path_factory.mktemp("empty"), PURPOSE)
    (folder / PLAN_FILE).write_bytes(b"native")
    assert reasons_to_build(folder, RECIPE, H200) == ["model.plan is incomplete"]
    with pytest.raises(EngineError, match="expected 11 bytes, got 6"):
        check_plan(folder, PURPOSE)


def test_a_changed_plan_of_the_same_size_is_found_when_it_is_read_whole(folder):
    (folder / PLAN_FILE).write_bytes(b"native CODE")
    assert reasons_to_build(folder, RECIPE, H200) == ["model.plan is not the one that model.plan.json tells of"]
    check_plan(folder, PURPOSE)
    with pytest.raises(EngineError, match="SHA-256 is not the one"):
        check_plan(folder, PURPOSE, whole=True)


def test_a_plan_loads_where_it_was_built(folder):
    assert check_plan(folder, PURPOSE, replace(H200, driver="590.1"), for_triton=True, whole=True) == read_record(folder)


@pytest.mark.parametrize(
    ("hardware", "machine", "words"),
    [
        ("none", replace(H200, tensorrt="11.3.0.99"), "built by TensorRT 11.4.0.106, here is 11.3.0.99"),
        ("none", replace(H200, gpu="NVIDIA H100 80GB HBM3"), "built on a NVIDIA H200, here is a NVIDIA H100"),
        (
            "none",
            Machine(H200.tensorrt, "NVIDIA A100", "8.0", "13.0"),
            "capability 9.0 (NVIDIA H200), here is 8.0 (NVIDIA A100)",
        ),
        ("same-compute-capability", replace(H200, gpu="NVIDIA H100 80GB HBM3"), None),
        ("same-compute-capability", Machine(H200.tensorrt, "NVIDIA A100", "8.0", "13.0"), "capability 9.0"),
        ("ampere-plus", Machine(H200.tensorrt, "NVIDIA A100", "8.0", "13.0"), None),
        ("ampere-plus", Machine(H200.tensorrt, "Tesla T4", "7.5", "13.0"), "for Ampere and later, here is a Tesla T4"),
        ("ampere-plus", replace(H200, tensorrt="10.16.1.11"), "TensorRT"),
    ],
)
def test_another_gpu_or_version_is_refused_in_words(folder, hardware, machine, words):
    rewrite(folder, recipe=replace(RECIPE, options=Options(hardware=hardware)))
    if words is None:
        assert incompatibility(read_record(folder), machine) is None
        check_plan(folder, PURPOSE, machine)
        return
    with pytest.raises(EngineError) as caught:
        check_plan(folder, PURPOSE, machine)
    assert words in str(caught.value) and str(folder / PLAN_FILE) in str(caught.value) and "export engine" in str(caught.value)


@pytest.mark.parametrize("options", [Options(stripped=True), Options(weight_streaming=True)])
def test_a_plan_that_triton_cannot_serve_is_refused_before_it_tries(folder, options):
    rewrite(folder, recipe=replace(RECIPE, options=options))
    check_plan(folder, PURPOSE, H200)
    with pytest.raises(EngineError, match="neither refits a plan nor sets a streaming budget"):
        check_plan(folder, PURPOSE, H200, for_triton=True)


def test_the_digests_cover_the_graph_and_its_weights(tmp_path):
    with pytest.raises(EngineError, match=r"expected .*model.onnx; make it with `python -m export onnx`"):
        onnx_digests(tmp_path)
    for name in ("model.onnx", "model.onnx.data", "metadata.json", PLAN_FILE):
        (tmp_path / name).write_text(name)
    assert list(onnx_digests(tmp_path)) == ["model.onnx", "model.onnx.data"]


# --------------------------------------------------------------------------------------------------------------- purpose
def of(variant, placement, component, sizes=ALL_SIZES):
    """A recipe as `export engine` writes it for a placement."""
    purpose = Purpose(variant, placements(variant)[placement], component)
    streams = purpose.execution.weights_on_card_bytes is not None
    return Recipe(
        variant.name,
        component,
        purpose.precision,
        RECIPE.onnx,
        bounds_document(purpose.bounds(sizes)),
        Options(weight_streaming=streams),
        sizes,
        purpose.execution.runtime.name,
    )


def on_tensorrt(variant, placement, component):
    """The same, of TensorRT proper."""
    return replace(of(variant, placement, component), runtime="tensorrt")


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda variant: variant.name)
@pytest.mark.parametrize("choice", [{}, {"largest": 1}, {"only": 1}, {"only": 1, "static": True}])
def test_a_plan_built_for_a_placement_serves_it(folder, variant, choice):
    smallest = (variant.limits.height[0], variant.limits.width[0])
    sizes = Sizes(**{key: smallest if value == 1 and value is not True else value for key, value in choice.items()})
    for placement in placements(variant).values():
        for component in placement.components:
            rewrite(folder, recipe=of(variant, placement.name, component, sizes))
            assert check_plan(folder, Purpose(variant, placement, component)).recipe.sizes == sizes


@pytest.mark.parametrize(
    ("recipe", "purpose", "words"),
    [
        (
            on_tensorrt(SDXL, "12gb", DENOISER),
            ("datacenter", DENOISER),
            "(rows: plan 1 to 4, server 1 to 16; latent_height: plan ",
        ),
        (on_tensorrt(SDXL, "16gb", VAE_DECODER), ("datacenter", VAE_DECODER), "images: plan 1 to 1, server 1 to "),
        (of(SDXL, "16gb", VAE_DECODER), ("24gb", VAE_DECODER), "(latent_height: plan 32 to 96, server 32 to 144"),
        (
            of(TINY_SDXL, "24gb", DENOISER),
            ("24gb", DENOISER),
            "expected a plan of variant sdxl, model.plan.json says tiny-sdxl",
        ),
        (
            of(SDXL, "24gb", VAE_DECODER),
            ("24gb", DENOISER),
            "expected a plan of component denoiser, model.plan.json says vae_dec",
        ),
        (of(SDXL, "cpu", DENOISER), ("24gb", DENOISER), "expected a plan of precision fp16, model.plan.json says fp32"),
        (replace(RECIPE, bounds={"rows": [1, 2, 8]}, runtime="trt-rtx"), ("24gb", DENOISER), "latent_height: plan without it"),
        (
            replace(of(SDXL, "datacenter", DENOISER, Sizes(only=(1344, 1344))), runtime="trt-rtx"),
            ("12gb", DENOISER),
            "does not serve: latent_height: expected",
        ),
    ],
)
def test_a_plan_for_something_else_is_refused_with_the_command_that_builds_it(folder, recipe, purpose, words):
    name, component = purpose
    rewrite(folder, recipe=recipe)
    with pytest.raises(EngineError) as caught:
        check_plan(folder, Purpose(SDXL, placements(SDXL)[name], component))
    command = f"`python -m export engine --variant sdxl --placement {name} --component {component}`"
    assert words in str(caught.value) and command in str(caught.value), caught.value


def test_a_plan_of_another_graph_than_the_one_beside_it_is_found_when_files_are_read(folder):
    (folder / "model.onnx").write_text("graph")
    rewrite(folder, recipe=replace(RECIPE, onnx=onnx_digests(folder)))
    check_plan(folder, PURPOSE, whole=True)
    (folder / "model.onnx.data").write_text("other weights")
    check_plan(folder, PURPOSE)
    with pytest.raises(EngineError, match=r"expected a plan of the model.onnx beside it, .* built from another; build it"):
        check_plan(folder, PURPOSE, whole=True)


# ------------------------------------------------------------------------------------------------ compiled ahead of time
NO_CARD = Machine("1.7.1.116")
RTX_4090 = Machine("1.7.1.116", "NVIDIA GeForce RTX 4090", "8.9", "580.95.05")
ON_RTX = replace(PURPOSE, placement=placements(SDXL)["24gb"])


@pytest.fixture
def compiled(folder):
    rewrite(folder, recipe=replace(RECIPE, runtime="trt-rtx", sm=(86, 89)), machine=NO_CARD)
    return folder


def test_a_plan_for_compute_capabilities_loads_on_their_cards_wherever_it_was_compiled(compiled):
    assert reasons_to_build(compiled, read_record(compiled).recipe, RTX_4090) == []
    assert check_plan(compiled, ON_RTX, RTX_4090, for_triton=True, whole=True).recipe.sm == (86, 89)
    assert check_plan(compiled, ON_RTX, NO_CARD)


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        (
            replace(RTX_4090, gpu="NVIDIA GeForce RTX 2080", compute_capability="7.5"),
            "compiled for SM 86, 89, here is a NVIDIA Ge",
        ),
        (replace(RTX_4090, tensorrt="1.8.0.1"), "built by TensorRT 1.7.1.116, here is 1.8.0.1"),
    ],
)
def test_and_nowhere_else(compiled, machine, words):
    with pytest.raises(EngineError, match=words):
        check_plan(compiled, ON_RTX, machine)


def test_further_capabilities_and_other_versions_are_reasons_to_compile_fewer_capabilities_are_not(compiled):
    recipe = read_record(compiled).recipe
    assert reasons_to_build(compiled, replace(recipe, sm=(89,)), NO_CARD) == []
    (reason,) = reasons_to_build(compiled, replace(recipe, sm=(89, 120)), NO_CARD)
    assert reason == "sm changed from (86, 89) to (89, 120)"
    (reason,) = reasons_to_build(compiled, recipe, replace(NO_CARD, tensorrt="1.8.0.1"))
    assert reason == "TensorRT changed from 1.7.1.116 to 1.8.0.1"


def test_a_plan_of_one_tensorrt_is_not_for_the_other(compiled):
    with pytest.raises(EngineError, match=r"expected a plan of runtime tensorrt, model.plan.json says trt-rtx"):
        check_plan(compiled, PURPOSE)
    rewrite(compiled, recipe=RECIPE)
    with pytest.raises(EngineError, match=r"says tensorrt; build it here with `.* --placement 24gb --component denoiser`"):
        check_plan(compiled, ON_RTX)


def test_a_placement_that_streams_weights_needs_a_plan_that_can(compiled):
    execution = replace(ON_RTX.execution, weights_on_card_bytes=10**9)
    placement = replace(ON_RTX.placement, components={**ON_RTX.placement.components, DENOISER: execution})
    with pytest.raises(EngineError, match="streams its weights, and it was built without --weight-streaming"):
        check_plan(compiled, replace(ON_RTX, placement=placement))
    recipe = replace(read_record(compiled).recipe, options=Options(weight_streaming=True))
    rewrite(compiled, recipe=recipe)
    assert check_plan(compiled, replace(ON_RTX, placement=placement), for_triton=True)
