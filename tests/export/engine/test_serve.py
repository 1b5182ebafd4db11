"""What `make serve` compiles: what is missing, and nothing that serves the card that is here. The driver's words come from a script."""

import sys
from dataclasses import replace

import pytest

from export.engine import build
from export.engine.build import build_missing, build_unfit, target_of, this_machine
from export.engine.options import Options
from export.engine.record import Machine, Measured, Purpose, Recipe, Record, check_plan, onnx_digests, read_record
from export.engine.shapes import ALL_SIZES, Sizes, bounds_document
from faceclip_serving.contract.names import DENOISER, VAE_DECODER
from faceclip_serving.contract.placements import ONNX_FILE, PLAN_FILE, TENSORRT, TRT_RTX, placements
from faceclip_serving.contract.variants.sdxl import TINY_SDXL
from faceclip_serving.models.tensorrt_package import PackageError, use

PLACEMENT = placements(TINY_SDXL)["8gb"]
RTX_4070, RTX_5090 = ("NVIDIA GeForce RTX 4070, 8.9", "NVIDIA GeForce RTX 5090, 12.0")
SMALL = Sizes(largest=(64, 64))

try:
    VERSION = use(TRT_RTX)
except PackageError as missing:
    pytest.skip(str(missing), allow_module_level=True)


@pytest.fixture
def compiled(tmp_path, monkeypatch):
    """A root of ONNX files; what would be compiled of them is noted by component, and a file takes its place."""
    for name in (DENOISER, VAE_DECODER):
        (tmp_path / "fp16" / name).mkdir(parents=True)
        (tmp_path / "fp16" / name / ONNX_FILE).write_text(name)
    done = {}

    def compile_to(work):
        done[work.signature.name] = work
        work.plan.write_text(f"plan for {work.sm}")
        return Measured(1.0)

    monkeypatch.setattr(build, "build_apart", compile_to)
    return tmp_path, done


@pytest.fixture
def cards(tmp_path, monkeypatch):
    """Makes these the cards of this machine, in the order of their numbers."""

    def install(*lines):
        script = tmp_path / "driver" / "nvidia-smi"
        script.parent.mkdir(exist_ok=True)
        told = [f"{line}, 580.95.05, 24576, 24000" for line in lines]
        script.write_text(f"#!{sys.executable}\nimport sys\nprint({told!r}[int(sys.argv[-1])])\n")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", str(script.parent))

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return install


def purpose(component=DENOISER, placement=PLACEMENT):
    return Purpose(TINY_SDXL, placement, component)


def planned(root, component=DENOISER, sm=(75, 86, 89, 120), sizes=ALL_SIZES, options=Options(), version=VERSION):  # noqa: B008 - frozen
    """Writes a plan as `export engine --sm …` with these choices does."""
    folder, wanted = root / "fp16" / component, purpose(component)
    (folder / PLAN_FILE).write_text("kept")
    bounds = bounds_document(wanted.bounds(sizes))
    recipe = Recipe("tiny-sdxl", component, "fp16", onnx_digests(folder), bounds, options, sizes, TRT_RTX.name, sm)
    digest = build.sha256(folder / PLAN_FILE)
    Record(recipe, Machine(version), 4, digest, Measured(1.0)).write(folder)
    return folder


@pytest.mark.parametrize(
    "choice", [{}, {"sizes": SMALL}, {"options": Options(optimization_level=5)}, {"options": Options(weight_streaming=True)}]
)
def test_a_plan_that_serves_the_card_is_kept_whatever_else_was_chosen_for_it(compiled, cards, choice):
    root, done = compiled
    cards(RTX_4070)
    folder = planned(root, **choice)
    before = read_record(folder)
    build_missing(TINY_SDXL, PLACEMENT, root)
    assert set(done) == {VAE_DECODER} and done[VAE_DECODER].sm == (89,), "what is missing, for the card that is here"
    assert read_record(folder) == before and (folder / PLAN_FILE).read_text() == "kept"
    done.clear()
    build_missing(TINY_SDXL, PLACEMENT, root)
    assert not done


@pytest.mark.parametrize("why", ["onnx", "version", "card", "plan", "record"])
def test_a_plan_that_does_not_serve_is_compiled_anew_with_what_was_chosen_for_it(compiled, cards, why):
    root, done = compiled
    cards(RTX_5090 if why == "card" else RTX_4070)
    chosen = Options(optimization_level=5)
    folder = planned(root, sm=(86, 89), sizes=SMALL, options=chosen, version="1.7.0.1" if why == "version" else VERSION)
    if why == "onnx":
        (folder / ONNX_FILE).write_text("exported again")
    elif why == "plan":
        (folder / PLAN_FILE).write_text("torn")
    elif why == "record":
        replace(read_record(folder), recipe=replace(read_record(folder).recipe, precision="fp32")).write(folder)
    build_missing(TINY_SDXL, PLACEMENT, root)
    recipe = read_record(folder).recipe
    assert done[DENOISER].sm == recipe.sm == ((86, 89, 120) if why == "card" else (86, 89))
    assert (recipe.sizes, recipe.options) == (SMALL, chosen)
    check_plan(folder, purpose(), target_of(TRT_RTX).machine, for_triton=True, whole=True)


def test_a_choice_that_the_placement_cannot_serve_goes(compiled, cards):
    root, done = compiled
    cards(RTX_4070)
    folder = planned(root)
    largest = TINY_SDXL.limits.height[1]
    recipe = replace(read_record(folder).recipe, sizes=Sizes(only=(largest + 8, largest)))
    replace(read_record(folder), recipe=recipe).write(folder)
    build_missing(TINY_SDXL, PLACEMENT, root)
    assert DENOISER in done and read_record(folder).recipe.sizes == ALL_SIZES
    replace(read_record(folder), recipe=replace(recipe, sizes=ALL_SIZES, runtime=TENSORRT.name)).write(folder)
    done.clear()
    build_missing(TINY_SDXL, PLACEMENT, root)
    assert done[DENOISER].sm == (89,), "a plan of the other TensorRT tells nothing of this one's"


def test_a_report_asks_for_what_serves_too(compiled, cards):
    """`gpu-verify` without --sm asks for the card, with it for all that are named."""
    root, done = compiled
    cards(RTX_4070)
    folder = planned(root, sm=(86, 89))
    assert not build_unfit(purpose(), folder, target_of(TRT_RTX))[1]
    assert not build_unfit(purpose(), folder, target_of(TRT_RTX, (86,)))[1]
    assert not done and build_unfit(purpose(), folder, target_of(TRT_RTX, (75, 89)))[0].recipe.sm == (75, 86, 89)


def test_plans_are_for_the_card_that_the_placement_is_put_on(compiled, cards):
    """`export repository --gpu 1 --engines`, where the cards differ."""
    root, done = compiled
    cards(RTX_5090, RTX_4070)
    build_missing(TINY_SDXL, replace(PLACEMENT, gpu=1), root)
    assert {name: work.sm for name, work in done.items()} == {DENOISER: (89,), VAE_DECODER: (89,)}
    assert this_machine(TRT_RTX).compute_capability == "12.0" and this_machine(TRT_RTX, 1).compute_capability == "8.9"


def test_tensorrt_proper_builds_on_the_card_that_is_named(compiled, monkeypatch):
    root, done = compiled
    seen = []
    h200 = Machine("11.4.0.106", "NVIDIA H200", "9.0")
    monkeypatch.setattr(build, "this_machine", lambda runtime, gpu: seen.append(gpu) or h200)
    build_missing(TINY_SDXL, replace(PLACEMENT.on(TENSORRT.name), gpu=1), root)
    assert seen == [1, 1] and {work.gpu for work in done.values()} == {1}
    from export.engine import tensorrt

    chosen = []
    monkeypatch.setattr(tensorrt, "select_gpu", chosen.append)
    monkeypatch.setattr(tensorrt, "_build", lambda *_: None)
    for work in done.values():
        tensorrt.build(work)
    assert chosen == [1, 1]
