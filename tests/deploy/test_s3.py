"""An assembled repository in object storage, which has objects and no folders: the chart's own copying command brings back one that a real
server starts from. The storage is moto's, on this machine."""

import os
import socket
import subprocess
import time
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from faceclip_serving.contract.placements import placements
from faceclip_serving.contract.variants.table import VARIANTS
from server.process import Ports, TritonServer

from .chart import pods
from .tools import tool

BUCKET = "models"


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    """The variables by which the storage is found, that runs until the end of this file."""
    moto = tool("moto_server")
    with socket.socket() as test:
        test.bind(("127.0.0.1", 0))
        port = test.getsockname()[1]
    log = tmp_path_factory.mktemp("moto") / "log"
    with subprocess.Popen(
        [moto, "-H", "127.0.0.1", "-p", str(port)], stdout=log.open("w"), stderr=subprocess.STDOUT
    ) as running:
        try:
            for _ in range(300):
                with socket.socket() as test:
                    if test.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            yield {
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
                "AWS_ACCESS_KEY_ID": "somebody",
                "AWS_SECRET_ACCESS_KEY": "something",
                "AWS_REGION": "us-east-1",
                "AWS_DEFAULT_REGION": "us-east-1",
            }
        finally:
            running.kill()


def aws(storage, *arguments):
    environment = {**os.environ, **storage, "HOME": "/nonexistent"}
    done = subprocess.run([tool("aws"), *map(str, arguments)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def copied(storage, repository, tmp_path_factory):
    """The repository, uploaded as docs/kubernetes.md says, and copied back as the chart's init container does."""
    folder = tmp_path_factory.mktemp("copied")
    aws(storage, "s3", "mb", f"s3://{BUCKET}")
    aws(storage, "s3", "sync", "--only-show-errors", repository, f"s3://{BUCKET}/sdxl-datacenter")
    (init,) = (each for each in pods("s3-keda-monitoring")["server"]["initContainers"] if each["name"] == "s3")
    mount = init["volumeMounts"][0]["mountPath"]
    aws(storage, *(each.replace(mount, str(folder)) for each in init["args"]))
    (found,) = folder.iterdir()
    environment = {each["name"]: each.get("value") for each in pods("s3-keda-monitoring")["server"]["containers"][0]["env"]}
    assert environment["FACECLIP_REPOSITORY"] == f"{mount}/{found.name}", "where the server looks"
    return found


def files(folder: Path):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.proof
@pytest.mark.server  # a repository must be exported first
def test_all_comes_back(repository, copied):
    assert files(copied) == files(repository)


@pytest.mark.server  # a repository must be exported first
def test_no_folder_that_triton_needs_is_empty(copied, repository):
    """A version's folder without an object in it would not be there at all."""
    configs = sorted(repository.glob("*/config.pbtxt"))
    assert len(configs) > 5
    for config in configs:
        name = text_format.Parse(config.read_text(), pb.ModelConfig()).name
        assert list((copied / name / "1").iterdir()), name


@pytest.mark.proof
@pytest.mark.parametrize("variant", [VARIANTS["sdxl"], VARIANTS["flux"]], ids=lambda each: each.name)
def test_every_model_of_every_placement_has_an_object_in_its_version(variant, monkeypatch, tmp_path):
    """By what the assembly writes, with artifacts that are empty files in the place of networks."""
    from export.repository import assemble

    monkeypatch.setattr(assemble, "_face_encoder", lambda *told: "0")
    monkeypatch.setattr(assemble, "_preview_factors", lambda *told: [0])
    monkeypatch.setattr(assemble, "write_tokenizers", lambda *told: None)
    monkeypatch.setattr(assemble, "check_plan", lambda *told, **named: None)
    for placement in placements(variant).values():
        for name, execution in placement.components.items():
            source = tmp_path / "onnx" / execution.precision / name
            source.mkdir(parents=True, exist_ok=True)
            for artifact in {execution.runtime.artifact, "model.onnx", "model.onnx.data"}:
                (source / artifact).touch()
        folder = tmp_path / placement.name
        configs = assemble.render(variant, placement, "faceclip")
        assemble._fill(folder, variant, placement, tmp_path / "onnx", configs, None, "faceclip")
        for model in folder.iterdir():
            assert any(path.is_file() for path in (model / "1").rglob("*")), f"{placement.name}: {model.name}"


@pytest.mark.server
def test_a_server_starts_from_what_was_copied(copied, tmp_path):
    with TritonServer(copied, Ports.free(), log=tmp_path / "log") as running:
        assert running.wait_ready()["faceclip"]["variant"] == "tiny-sdxl"
        running.stop(0)
