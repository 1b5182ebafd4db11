"""Checkpoint folders: conversion of pickles, strict loading, and what a user is told when a file is wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from export.checkpoint.digests import sha256
from export.checkpoint.errors import CheckpointError
from export.checkpoint.read import load_part, readable_file
from export.checkpoint.seeded import fill_seeded
from export.networks.faceclip import FaceCLIPEncoder
from faceclip_serving.contract.variants.architectures import Fuser, TextTower
from faceclip_serving.contract.variants.sdxl import TINY_SDXL


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 2, bias=False))


def on_meta() -> nn.Module:
    with torch.device("meta"):
        return network()


def write_pickle(folder: Path, tensors: object, file: str = "unet.pt", **options: bool) -> Path:
    path = folder / "model" / file
    path.parent.mkdir(exist_ok=True)
    torch.save(tensors, path, **options)
    return path


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    module = network()
    fill_seeded(module)
    return module.state_dict()


def assert_holds(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    found = module.state_dict()
    assert list(found) == list(tensors)
    assert all(torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in tensors.items())


# ------------------------------------------------------------------------------------------------------------- loading
@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize("build", [network, on_meta])
def test_pickle_loads_with_and_without_prefix_and_memory(
    tmp_path: Path, tensors: dict[str, Tensor], prefix: str, build: Callable[[], nn.Module]
) -> None:
    write_pickle(tmp_path, {prefix + name: tensor for name, tensor in tensors.items()})
    module = build()
    load_part(module, tmp_path, "unet")
    assert_holds(module, tensors)


def test_encoder_on_meta_computes_after_loading(tmp_path: Path) -> None:
    architecture = replace(
        TINY_SDXL.architecture,
        towers={"face_clip_l": TextTower(32, heads=2, layers=1, activation="gelu", vocabulary=64)},
        fuser=Fuser(rounds=1, attention_width=32, face_ffn=32, text_ffn=32),
    )
    filled = FaceCLIPEncoder(architecture, TINY_SDXL.tokens[0])
    fill_seeded(filled)
    write_pickle(tmp_path, {f"model.{name}": tensor for name, tensor in filled.state_dict().items()}, "face_clip_encoder.pt")
    with torch.device("meta"):
        loaded = FaceCLIPEncoder(architecture, TINY_SDXL.tokens[0])
    load_part(loaded, tmp_path, "face_clip_encoder")
    inputs = (torch.rand(2, 3, 448, 448), torch.tensor([True, False]), torch.randint(0, 64, (2, 77)))
    for expected, found in zip(filled(*inputs), loaded(*inputs), strict=True):
        assert torch.equal(expected, found)


def test_module_keeps_its_dtypes(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    halves = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    write_pickle(tmp_path, halves)
    for module in (network(), on_meta()):
        load_part(module, tmp_path, "unet")
        assert_holds(module, {name: tensor.to(tensors[name].dtype) for name, tensor in halves.items()})


@pytest.mark.parametrize("suffix", ["", ".fp16"])
def test_safetensors_are_read_where_they_lie(tmp_path: Path, tensors: dict[str, Tensor], suffix: str) -> None:
    (tmp_path / "vae").mkdir()
    save_file(tensors, tmp_path / "vae" / f"diffusion_pytorch_model{suffix}.safetensors")
    module = on_meta()
    load_part(module, tmp_path, "vae")
    assert_holds(module, tensors)
    assert not (tmp_path / "converted").exists()


def test_old_pickles_and_tensors_that_share_memory(tmp_path: Path) -> None:
    whole = torch.arange(24.0).reshape(4, 6)
    saved = {"0.weight": whole, "0.bias": whole[1, :4], "1.weight": whole[0], "2.weight": whole.t()[:2]}
    module = nn.Sequential(nn.Linear(6, 4), nn.RMSNorm(6), nn.Linear(4, 2, bias=False))
    write_pickle(tmp_path, saved, _use_new_zipfile_serialization=False)
    load_part(module, tmp_path, "unet")
    assert_holds(module, saved)


# ---------------------------------------------------------------------------------------------------------- conversion
def test_conversion_is_recorded_and_done_once(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    source = write_pickle(tmp_path, tensors)
    source.chmod(0o640)
    target = readable_file(tmp_path, "unet")
    assert target.stat().st_mode == source.stat().st_mode
    record = json.loads(target.with_suffix(".json").read_text())
    assert record["source"]["sha256"] == sha256(source)
    assert record["source"]["size_bytes"] == source.stat().st_size
    assert record["converted"] == {"file": target.name, "size_bytes": target.stat().st_size, "sha256": sha256(target)}
    assert sorted(path.name for path in target.parent.iterdir()) == ["unet.json", "unet.safetensors"]
    first = target.stat().st_ino
    assert readable_file(tmp_path, "unet").stat().st_ino == first


def test_changed_source_is_converted_again(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    source = write_pickle(tmp_path, tensors)
    readable_file(tmp_path, "unet")
    changed = {name: tensor + 1 for name, tensor in tensors.items()}
    write_pickle(tmp_path, changed)
    later = source.stat().st_mtime_ns + 1_000_000
    os.utime(source, ns=(later, later))
    module = network()
    load_part(module, tmp_path, "unet")
    assert_holds(module, changed)


def test_damaged_copy_is_replaced_and_deleted_source_is_not_needed(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    source = write_pickle(tmp_path, tensors)
    target = readable_file(tmp_path, "unet")
    os.truncate(target, target.stat().st_size - 1)
    readable_file(tmp_path, "unet")
    source.unlink()
    module = network()
    load_part(module, tmp_path, "unet")
    assert_holds(module, tensors)


# ----------------------------------------------------------------------------------------------------- what can be wrong
def told(folder: Path, part: str = "unet", module: nn.Module | None = None) -> str:
    with pytest.raises(CheckpointError) as error:
        load_part(module or network(), folder, part)
    return str(error.value)


def test_missing_file(tmp_path: Path) -> None:
    message = told(tmp_path)
    assert f"'{tmp_path}/model/unet.pt' is missing" in message
    assert "download --only unet" in message


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.95])
def test_truncated_pickle(tmp_path: Path, tensors: dict[str, Tensor], kept: float) -> None:
    source = write_pickle(tmp_path, tensors)
    os.truncate(source, int(source.stat().st_size * kept))
    message = told(tmp_path)
    assert "model/unet.pt" in message
    assert "not a whole file of tensors" in message
    assert not (tmp_path / "converted" / "unet.safetensors").exists()


def test_truncated_safetensors(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    (tmp_path / "vae").mkdir()
    path = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    save_file(tensors, path)
    os.truncate(path, path.stat().st_size - 8)
    assert f"'{path}'" in told(tmp_path, "vae")


def test_damage_within_the_copy(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    write_pickle(tmp_path, tensors)
    copy = readable_file(tmp_path, "unet")
    with copy.open("r+b") as file:
        file.write(b"\xff" * 16)
    message = told(tmp_path)
    assert f"'{copy}'" in message
    assert "delete it; the next run makes it again" in message


def test_names_and_shapes_that_do_not_fit_are_listed(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    wrong = {name: tensor for name, tensor in tensors.items() if not name.startswith("1.")}
    wrong["0.weight"] = torch.zeros(4, 7)
    wrong["3.weight"] = torch.zeros(1)
    write_pickle(tmp_path, wrong)
    message = told(tmp_path)
    assert "5 missing: 1.weight, 1.bias, 1.running_mean, 1.running_var, 1.num_batches_tracked" in message
    assert "1 not known to the network: 3.weight" in message
    assert "(made from 'model/unet.pt')" in message
    assert "1 of another shape: 0.weight (expected [4, 6], found [4, 7])" in message


def test_long_lists_are_cut(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    write_pickle(tmp_path, tensors | {f"extra.{i:02}": torch.zeros(1) for i in range(12)})
    assert "12 not known to the network: extra.00, extra.01, extra.02, extra.03, extra.04, and 7 more" in told(tmp_path)


def test_pickle_of_something_else(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    write_pickle(tmp_path, {"state_dict": tensors, "epoch": 3})
    assert "got state_dict, epoch that are no tensors" in told(tmp_path)


class Intruder:
    """Unpickling it runs a command."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    write_pickle(tmp_path, {"0.weight": Intruder(mark)})
    assert "not a whole file of tensors" in told(tmp_path)
    assert not mark.exists()


def test_unknown_part() -> None:
    assert "part 'dit2': expected one of face_clip_encoder, unet" in told(Path(), "dit2")
