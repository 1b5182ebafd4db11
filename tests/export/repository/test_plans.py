"""Plans in a repository: assembled and loaded only where they serve the model that they lie in."""

import shutil
from dataclasses import replace

import pytest

from export.checkpoint.digests import sha256
from export.engine import inspect
from export.engine.errors import EngineError
from export.engine.inspect import check_repository
from export.engine.options import Options
from export.engine.record import RECORD, Machine, Measured, Purpose, Recipe, Record, onnx_digests, read_record
from export.engine.shapes import bounds_document
from export.repository.assemble import assemble
from faceclip_serving.contract.names import COMPONENTS, DENOISER, VAE_DECODER
from faceclip_serving.contract.placements import ONNX_FILE, PLAN_FILE, TENSORRT, TRT_RTX, placements
from faceclip_serving.contract.variants.sdxl import TINY_SDXL
from faceclip_serving.models.trt_component import cache_file

H200 = Machine("11.4.0.106", "NVIDIA H200", "9.0", "580.95.05")
PLACEMENTS = {name: placement.on(TENSORRT.name) for name, placement in placements(TINY_SDXL).items()}


@pytest.fixture
def components(tiny_fp32, tmp_path):
    """Components with records as `export engine` writes them for 16gb on TensorRT proper.

    Only the decoder's graph is read: previews are fitted to it.
    """
    root = tmp_path / "components"
    for name in COMPONENTS:
        folder = root / "fp16" / name
        folder.mkdir(parents=True)
        (folder / ONNX_FILE).write_text(name)
        if name == VAE_DECODER:
            for path in (tiny_fp32 / name).glob(f"{ONNX_FILE}*"):
                shutil.copy(path, folder)
        planned(folder, Purpose(TINY_SDXL, PLACEMENTS["16gb"], name))
    return root


def planned(folder, purpose, plan="plan"):
    (folder / PLAN_FILE).write_text(plan)
    bounds, runtime = bounds_document(purpose.bounds()), purpose.execution.runtime
    recipe = Recipe(
        purpose.variant.name,
        purpose.component,
        purpose.precision,
        onnx_digests(folder),
        bounds,
        Options(),
        runtime=runtime.name,
        sm=(89,) if runtime.ahead_of_time else (),
    )
    machine = Machine("1.7.1.116") if runtime.ahead_of_time else H200
    Record(recipe, machine, len(plan), sha256(folder / PLAN_FILE), Measured(1.0)).write(folder)


@pytest.mark.parametrize("deployment", ["faceclip", "second"])
def test_a_repository_of_plans_is_assembled_and_its_records_are_read_where_it_is_served(
    components, tmp_path, monkeypatch, deployment
):
    monkeypatch.setattr(inspect, "this_machine", lambda runtime, gpu: H200)  # there is no GPU here
    repository = assemble(TINY_SDXL, PLACEMENTS["16gb"], components, tmp_path / "r", deployment=deployment)
    assert {record.recipe.component for record in check_repository(repository)} == set(COMPONENTS)
    prefix = "" if deployment == "faceclip" else f"{deployment}_"
    tile, denoiser = (repository / f"{prefix}{name}" / "1" for name in (VAE_DECODER, DENOISER))
    kept = {name: (denoiser / name).read_bytes() for name in (PLAN_FILE, RECORD)}
    for name in kept:  # a plan that came from elsewhere
        (denoiser / name).unlink()
        shutil.copy(tile / name, denoiser)
    with pytest.raises(EngineError, match=r"expected a plan of component denoiser, model.plan.json says vae_decoder"):
        check_repository(repository)
    for name, content in kept.items():
        (denoiser / name).write_bytes(content)
    config = denoiser.parent / "config.pbtxt"
    config.write_text(config.read_text().replace('"16gb"', '"datacenter"'))
    with pytest.raises(EngineError, match=r"rows: plan 1 to 8, server 1 to 16.*--placement datacenter --component denoiser"):
        check_repository(repository)
    config.write_text("name: 'denoiser'")
    with pytest.raises(EngineError, match=r"expected the variant and placement that .* writes"):
        check_repository(repository)


@pytest.mark.parametrize("runtime", [TRT_RTX, TENSORRT])
def test_plans_are_checked_on_the_card_that_the_repository_names(components, tmp_path, monkeypatch, runtime):
    placement = replace(placements(TINY_SDXL)["16gb"].on(runtime.name), gpu=1)
    for name in COMPONENTS:
        planned(components / "fp16" / name, Purpose(TINY_SDXL, placement, name))
    repository = assemble(TINY_SDXL, placement, components, tmp_path / "r")
    version = "1.7.1.116" if runtime is TRT_RTX else H200.tensorrt
    right = Machine(version, "NVIDIA GeForce RTX 4090", "8.9") if runtime is TRT_RTX else H200
    wrong = Machine(version, "NVIDIA GeForce RTX 3090", "8.6")
    monkeypatch.setattr(inspect, "this_machine", lambda runtime, gpu: (wrong, right)[gpu])
    assert {record.recipe.component for record in check_repository(repository)} == set(COMPONENTS)
    monkeypatch.setattr(inspect, "this_machine", lambda runtime, gpu: (right, wrong)[gpu])
    with pytest.raises(EngineError, match=r"here is .*RTX 3090|here is 8\.6"):
        check_repository(repository)


def test_plans_of_another_placement_or_graph_are_not_assembled(components, tmp_path):
    with pytest.raises(EngineError, match="takes less than placement '24gb' asks of it"):
        assemble(TINY_SDXL, PLACEMENTS["24gb"], components, tmp_path / "r")
    (components / "fp16" / DENOISER / ONNX_FILE).write_text("exported again")
    with pytest.raises(EngineError, match=r"built from another; build it here with `python -m export engine .* denoiser`"):
        assemble(TINY_SDXL, PLACEMENTS["16gb"], components, tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_plans_that_the_python_backend_runs_are_served_with_its_code_and_checked_as_such(components, tmp_path, monkeypatch):
    placement = placements(TINY_SDXL)["16gb"]
    with pytest.raises(EngineError, match=r"expected a plan of runtime trt-rtx, model.plan.json says tensorrt; build it"):
        assemble(TINY_SDXL, placement, components, tmp_path / "r")
    for name in COMPONENTS:
        folder = components / "fp16" / name
        record = read_record(folder)
        replace(record, recipe=replace(record.recipe, runtime=TRT_RTX.name, sm=(89,)), machine=Machine("1.7.1.116")).write(
            folder
        )
    repository = assemble(TINY_SDXL, placement, components, tmp_path / "r")
    assert {path.name for path in (repository / placement.folder(DENOISER)).iterdir()} >= {PLAN_FILE, RECORD}
    assert not (repository / DENOISER).exists()
    card = Machine("1.7.1.116", "NVIDIA GeForce RTX 4090", "8.9")
    monkeypatch.setattr(inspect, "this_machine", lambda runtime, gpu: card if runtime is TRT_RTX else H200)
    assert {record.recipe.component for record in check_repository(repository)} == set(COMPONENTS)
    shutil.copy(repository / placement.folder(VAE_DECODER) / RECORD, repository / placement.folder(DENOISER))
    with pytest.raises(EngineError, match="expected a plan of component denoiser"):
        check_repository(repository)


def test_what_a_card_finished_is_kept_while_the_plan_is_the_same(components, tmp_path, monkeypatch):
    placement = placements(TINY_SDXL)["16gb"]
    for name in COMPONENTS:
        planned(components / "fp16" / name, Purpose(TINY_SDXL, placement, name))
    repository = assemble(TINY_SDXL, placement, components, tmp_path / "r")
    cache = cache_file(repository / placement.folder(DENOISER) / PLAN_FILE, "NVIDIA GeForce RTX 4090", "1.7.1.116")
    cache.write_text("kernels")
    again = replace(placement, gpu=1)  # other configs, the same plans
    assemble(TINY_SDXL, again, components, repository)
    assert cache.read_text() == "kernels"
    (components / "fp16" / DENOISER / PLAN_FILE).unlink()
    planned(components / "fp16" / DENOISER, Purpose(TINY_SDXL, placement, DENOISER), "another plan")
    assemble(TINY_SDXL, placement, components, repository)
    assert not cache.exists()


@pytest.mark.parametrize("place", ["repository", "components"])
def test_a_runtime_cache_that_grows_replaces_nothing_under_a_running_server(components, tmp_path, place):
    placement = placements(TINY_SDXL)["16gb"]
    for name in COMPONENTS:
        planned(components / "fp16" / name, Purpose(TINY_SDXL, placement, name))
    repository = assemble(TINY_SDXL, placement, components, tmp_path / "r")
    model = repository / placement.folder(DENOISER).parts[0]
    folder = repository / placement.folder(DENOISER) if place == "repository" else components / "fp16" / DENOISER
    cache = cache_file(folder / PLAN_FILE, "NVIDIA GeForce RTX 4090", "1.7.1.116")
    again = replace(placement, max_waiting=3)  # other configs, the same plans: assembled anew, with the cache
    for content in ("kernels", "more kernels", "yet more kernels"):
        cache.write_text(content)
        inode = model.stat().st_ino
        assemble(TINY_SDXL, placement if content == "kernels" else again, components, repository)
        assert (model.stat().st_ino == inode) == (content != "more kernels")
        inode = model.stat().st_ino
        cache.write_text(f"{content}, grown")
        assemble(TINY_SDXL, placement if content == "kernels" else again, components, repository)
        assert model.stat().st_ino == inode and cache.read_text() == f"{content}, grown"
    cache.unlink()
    assemble(TINY_SDXL, again, components, repository)
    assert model.stat().st_ino == inode and not list(repository.rglob("*.cache"))


def test_a_cache_whose_plan_is_gone_is_left_behind(components, tmp_path):
    placement = placements(TINY_SDXL)["16gb"]
    for name in COMPONENTS:
        planned(components / "fp16" / name, Purpose(TINY_SDXL, placement, name))
    repository = assemble(TINY_SDXL, placement, components, tmp_path / "r")
    plan = repository / placement.folder(DENOISER) / PLAN_FILE
    cache = cache_file(plan, "NVIDIA GeForce RTX 4090", "1.7.1.116")
    cache.write_text("kernels")
    plan.unlink()
    assemble(TINY_SDXL, placement, components, repository)
    assert plan.exists() and not cache.exists()
