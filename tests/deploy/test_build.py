"""From ONNX files to the folder that is served, in the chart and in Compose: their scripts and deploy/build.sh, carried out. `engine`,
`verify` and `inspect` do nothing here; `repository` is the product's own, and writes its record and no model."""

import os
import re
import subprocess
import sys

import pytest
import yaml

from export.repository.deployments import RECORD
from faceclip_serving.contract.placements import placements
from faceclip_serving.contract.variants.table import VARIANTS
from tests.server.image import instructions

from .chart import NAMESPACE, SETS, of_kind, pods, server
from .tools import ROOT

WORKDIR = dict(instructions())["WORKDIR"]
COMPOSE = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
EVERY_PLACEMENT = pytest.mark.parametrize(
    ("variant", "placement"),
    [(VARIANTS[name], each) for name in ("sdxl", "flux") for each in placements(VARIANTS[name]).values()],
    ids=lambda each: each.name,
)
PYTHON = f"""#!/bin/sh
case "$3" in
repository) PYTHONPATH={ROOT} exec {sys.executable} -c '
import sys
from export.__main__ import main
from export.repository import assemble
def record(variant, placement, components, destination, *told):
    destination.mkdir(parents=True, exist_ok=True)
    (destination / "{RECORD}").write_text(f"{{placement.label}} of {{components}}")
assemble.assemble = record
sys.exit(main(sys.argv[3:]))
' "$@" ;;
*) echo "$@" ;;
esac
"""


@pytest.fixture
def workdir(tmp_path):
    """The image's folder, as far as a build needs it."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").write_text(PYTHON)
    (tmp_path / "bin" / "python3").chmod(0o755)
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy" / "build.sh").write_text((ROOT / "deploy" / "build.sh").read_text())
    (tmp_path / "build").mkdir()
    return tmp_path


def carried_out(command, workdir, environment=()):
    """What it says. `environment`: of a container, as Kubernetes has it."""
    told = {each["name"]: each["value"] for each in environment if "value" in each}
    path = f"{workdir / 'bin'}:/usr/bin:/bin"
    done = subprocess.run(command, cwd=workdir, env={**told, "PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def label(variant, placement):
    """What a repository of the image is called: of plans it has those of TensorRT proper."""
    return f"{placement.on('tensorrt').label} of build/onnx/{variant.name}"


# ----------------------------------------------------------------------------------------------------------------------- folders
@EVERY_PLACEMENT
def test_the_job_makes_what_the_servers_serve(variant, placement, workdir):
    options = (f"--set=variant={variant.name},placement={placement.name}", "--set=gpu.product=X")
    (build,) = pods("sdxl-datacenter", *options)["build"]["containers"]
    (waits,) = (each for each in pods("sdxl-datacenter", *options)["server"]["initContainers"] if each["name"] == "repository")
    mounts = {each["mountPath"]: each["name"] for each in build["volumeMounts"]}
    assert mounts[f"{WORKDIR}/build"] == "repositories", "the claim, which servers mount at /repositories"
    environment = {each["name"]: each.get("value") for each in server("sdxl-datacenter", *options)["env"]}
    assert environment["FACECLIP_REPOSITORY"] == waits["env"][0]["value"] and RECORD in waits["command"][-1]
    said = carried_out(build["args"], workdir, build["env"])
    steps = re.findall(r"^-m export (\w+)", said, re.MULTILINE)
    runtimes = {each.runtime for each in placement.components.values()}
    assert steps == (["engine", "verify", "inspect"] if any(each.package for each in runtimes) else ["inspect"])
    (made,) = (workdir / "build").iterdir()
    assert f"/repositories/{made.name}" == environment["FACECLIP_REPOSITORY"]
    assert (made / RECORD).read_text() == label(variant, placement)
    assert carried_out(build["args"], workdir, build["env"]) == "", "once"


@pytest.mark.proof
@EVERY_PLACEMENT
def test_compose_serves_what_it_builds(variant, placement, workdir):
    def chosen(text):
        """As Compose fills it in."""
        told = {"VARIANT": variant.name, "PLACEMENT": placement.name}
        return re.sub(r"\$\{(\w+):-[^}]*\}", lambda found: told[found[1]], text)

    build, serve = COMPOSE["build-engines"], COMPOSE["faceclip"]
    assert build["volumes"] == [f"../build:{WORKDIR}/build"]
    carried_out([chosen(each) for each in build["command"]], workdir)
    (made,) = (workdir / "build").iterdir()
    assert chosen(serve["volumes"][0]) == f"../build/{made.name}:/models:ro"
    assert (made / RECORD).read_text() == label(variant, placement)


def test_options_go_to_the_builder_of_engines(workdir):
    (build,) = pods("flux-16gb")["build"]["containers"]
    assert build["args"][4:] == ["flux", "16gb", "--largest", "1024x1024"]
    assert "command" not in build, "the image's entry point runs NVIDIA's own first"
    lines = [each for each in carried_out(build["args"], workdir, build["env"]).splitlines() if each.startswith("-m")]
    assert [each.endswith("--largest 1024x1024") for each in lines] == [True, False, False]


# --------------------------------------------------------------------------------------------------------------------- ONNX files
def waits_for_onnx(*options):
    (found,) = (each for each in pods("nano-cpu", *options)["build"]["initContainers"] if each["name"] == "onnx")
    return found


@pytest.mark.parametrize("folder", ["onnx", "onnx-2"])
def test_the_job_waits_for_onnx_files_and_says_how_they_get_there(folder, workdir):
    """Its script runs, its own words are obeyed, with this machine in the place of a pod, and then it ends; so does the build."""
    option = f"--set=build.onnx={folder}"
    container, (build,) = waits_for_onnx(option), pods("nano-cpu", option)["build"]["containers"]
    (workdir / "build" / "onnx" / "other" / "fp32").mkdir(parents=True)  # of another variant, or of before
    exported = workdir / "exporter" / "build" / "onnx" / "nano" / "fp32"
    exported.mkdir(parents=True)
    (exported / "model.onnx").write_text("a network")
    environment = {each["name"]: each.get("value", "pod-1") for each in container["env"]} | {"PATH": os.environ["PATH"]}
    with subprocess.Popen(container["command"], cwd=workdir, env=environment, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert "waits for" in running.stdout.readline()
            told = running.stdout.readline()
            packs, _, unpacks = told.partition(f" | kubectl --namespace {NAMESPACE} exec -i pod-1 -c onnx -- ")
            whole = subprocess.run(["sh", "-c", packs], cwd=workdir / "exporter", capture_output=True, check=True).stdout
            for length in range(0, len(whole), 20):
                assert subprocess.run(["sh", "-c", unpacks], cwd=workdir, input=whole[:length], capture_output=True).returncode
            assert not (workdir / "build" / folder / "nano").exists() and running.poll() is None, "half a copy is none"
            copy = f"{packs} | (cd {workdir} && {unpacks.strip()})"
            subprocess.run(["sh", "-c", copy], cwd=workdir / "exporter", check=True)
            assert running.wait(60) == 0
        finally:
            running.kill()
    assert (workdir / "build" / folder / "nano" / "fp32" / "model.onnx").read_text() == "a network"
    carried_out(build["args"], workdir, build["env"])
    (record,) = (workdir / "build").glob(f"*/{RECORD}")
    assert record.read_text() == f"cpu of build/{folder}/nano"


def test_what_is_built_already_waits_for_no_onnx_files(workdir):
    container = waits_for_onnx()
    folder = {each["name"]: each.get("value") for each in container["env"]}["FOLDER"]
    (workdir / "build" / folder).mkdir()
    (workdir / "build" / folder / RECORD).touch()
    assert carried_out(container["command"], workdir, container["env"]) == ""


def test_onnx_files_from_object_storage_are_copied_where_they_are_read():
    option = "--set=s3.onnx=s3://models/onnx,build.onnx=onnx-2"
    (copies,) = pods("sdxl-datacenter", option)["build"]["initContainers"]
    (build,) = pods("sdxl-datacenter", option)["build"]["containers"]
    assert copies["args"][-2:] == ["s3://models/onnx", f"{WORKDIR}/build/onnx-2"]
    assert {"name": "ONNX", "value": "build/onnx-2"} in build["env"]


# ------------------------------------------------------------------------------------------------------------------------ engines
def folder_and_job(*options):
    (job,) = of_kind("sdxl-datacenter", "Job", *options)
    (build,) = job["spec"]["template"]["spec"]["containers"]
    return {each["name"]: each["value"] for each in build["env"]}["FOLDER"], job["metadata"]["name"]


@pytest.mark.parametrize(
    "option",
    [
        "image.tag=v2",
        "gpu.product=NVIDIA-L40S",
        "placement=24gb",
        "build.options={--largest,1024x1024}",
        "build.onnx=onnx-2",
    ],
)
def test_engines_of_another_kind_lie_elsewhere(option):
    """Servers of before go on with theirs."""
    ours, others = folder_and_job(), folder_and_job(f"--set={option}")
    assert ours[0] != others[0] and ours[1] != others[1]


def test_what_does_not_concern_engines_builds_none():
    ours, others = folder_and_job(), folder_and_job("--set=resources.memoryGi=20")
    assert ours[0] == others[0] and ours[1] != others[1], (
        "a Job cannot be changed, so it is another; it finds all there and ends"
    )
    assert folder_and_job("--set=replicas=9") == ours


@pytest.mark.parametrize("values", SETS)
def test_servers_only_read_the_repository(values):
    mounts = {each["mountPath"]: each for each in server(values)["volumeMounts"]}
    assert mounts["/repositories"]["readOnly"]
    jobs = of_kind(values, "Job")
    assert len(jobs) == (0 if values == "s3-keda-monitoring" else 1)
    claims = [each for each in of_kind(values, "PersistentVolumeClaim") if each["metadata"]["name"].endswith("-repository")]
    assert all(each["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for each in claims)
    assert len(claims) == len(jobs)
