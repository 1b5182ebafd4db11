"""config.pbtxt: rendered from the signatures, and consistent."""

import argparse
import importlib
import re
from dataclasses import replace

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from export.__main__ import COMMANDS
from export.paths import MODEL_REPOSITORY
from export.repository.assemble import RepositoryError, assemble
from export.repository.render import DEFAULT_PLACEMENT, DEFAULT_VARIANT, render
from faceclip_serving.contract.names import COMPONENTS
from faceclip_serving.contract.placements import ORT_CUDA, PLAN_FILE, TENSORRT, TRT_RTX, placements
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.face.detectors import MODEL


def parse(text):
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def test_the_committed_repository_has_the_models_of_the_signatures():
    """That each is up to date, test_interface says."""
    assert {path.parent.name for path in MODEL_REPOSITORY.glob("*/config.pbtxt")} == set(
        render(DEFAULT_VARIANT, DEFAULT_PLACEMENT)
    )


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda variant: variant.name)
def test_a_placement_changes_where_components_run_and_nothing_that_they_exchange(variant):
    interfaces = {}
    for placement in placements(variant).values():
        configs = {name: parse(text) for name, text in render(variant, placement).items()}
        assert {name for name in COMPONENTS if name not in configs} == set(filter(placement.is_hosted, COMPONENTS))
        for name, config in configs.items():
            told = [[(each.name, each.data_type, tuple(each.dims)) for each in part] for part in (config.input, config.output)]
            assert interfaces.setdefault(name, told) == told
            if name in COMPONENTS:
                runtime = placement.components[name].runtime
                assert (config.backend, config.platform) == (runtime.backend, runtime.platform)


def test_a_tensorrt_component_is_tritons_own_backend():
    config = parse(render(DEFAULT_VARIANT, placements(DEFAULT_VARIANT)["datacenter"])["denoiser"])
    assert (config.platform, config.default_model_filename) == ("tensorrt_plan", PLAN_FILE)
    assert config.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_GPU


@pytest.mark.proof
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda variant: variant.name)
def test_plans_of_another_runtime_change_who_runs_them_and_nothing_else(variant):
    for placement in placements(variant).values():
        placement = placement.on(TENSORRT.name)
        chosen = placement.on(TRT_RTX.name)
        plans = [name for name, execution in placement.components.items() if execution.runtime.package]
        assert (
            chosen.plans_on == (TRT_RTX.name if plans else "") and chosen.on(TENSORRT.name).components == placement.components
        )
        before, after = (({name: parse(text) for name, text in render(variant, each).items()}) for each in (placement, chosen))
        assert before.keys() - after.keys() == set(plans) and not after.keys() - before.keys()
        assert [list(config.input) for config in after.values()] == [list(before[name].input) for name in after]
        for component in COMPONENTS:
            if component in plans:
                assert after["sampler"].parameters["plans_on"].string_value == TRT_RTX.name
                assert chosen.components[component].precision == placement.components[component].precision
            else:
                assert chosen.components[component] == placement.components[component]


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda variant: variant.name)
def test_a_repository_for_one_gpu_uses_that_one_alone(variant):
    """Two deployments on two GPUs of one server included: each names its own."""
    for placement in placements(variant).values():
        for gpu in (0, 1):
            chosen = replace(placement, gpu=gpu)
            configs = {name: parse(text) for name, text in render(variant, chosen, "second" if gpu else "faceclip").items()}
            for name, config in configs.items():
                if config.backend == "python":
                    assert int(config.parameters["gpu"].string_value or 0) == gpu
                elif name in COMPONENTS:
                    assert [list(group.gpus) for group in config.instance_group] == [[gpu]]
            for component in COMPONENTS:
                options = [entry[1] for entry in chosen.providers(component) if not isinstance(entry, str)]
                on_cuda = placement.components[component].runtime is ORT_CUDA
                assert options == ([{"device_id": str(gpu)}] if on_cuda else [])


def test_the_face_detector_comes_with_the_shared_code(repository):
    copy = repository / "prepare" / "1" / "faceclip_serving" / "face" / MODEL.name
    assert copy.read_bytes() == MODEL.read_bytes() and (MODEL.parent / "LICENSE.yunet").exists()


def test_object_storage_which_has_no_empty_folders_keeps_every_version_folder(repository):
    for root in (MODEL_REPOSITORY, repository):
        folders = [path.parent / "1" for path in root.glob("*/config.pbtxt")]
        assert len(folders) >= 7
        assert not [folder for folder in folders if not any(path.is_file() for path in folder.iterdir())]


@pytest.mark.proof
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda variant: variant.name)
def test_what_is_missing_is_told_with_a_command_that_makes_it(variant, tmp_path):
    """For every placement: the command exists, takes these options, and is about this variant and placement."""
    for placement in placements(variant).values():
        with pytest.raises(RepositoryError, match="make it with") as caught:
            assemble(variant, placement, tmp_path / "nothing", tmp_path / "repository")
        command = re.search(r"`python -m export (\w+) (.*)`", str(caught.value))
        parser = argparse.ArgumentParser()
        importlib.import_module(COMMANDS[command[1]].module).add_arguments(parser)
        parsed = parser.parse_args(command[2].split())
        assert parsed.variant == variant.name
        if parsed.placement is not None:
            assert parsed.placement == placement.name
