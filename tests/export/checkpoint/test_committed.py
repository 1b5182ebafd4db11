"""Weights that come with the project: found without being named, read as they lie, and missed in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from benchmarks.quality.parity import sizes
from export.checkpoint import committed
from export.checkpoint.committed import own_folder, weights_folder
from export.checkpoint.errors import CheckpointError
from export.checkpoint.read import load_part
from export.checkpoint.tensor_files import read_tensors, write_tensors
from export.checkpoint.tokenizers import TokenizerError, tokenizer_folders, write_tokenizers
from export.onnx.export import export_component
from export.onnx.wanted import Export, traced_bounds
from faceclip_serving.contract.errors import InvalidRequest
from faceclip_serving.contract.names import DENOISER, FACE_ENCODER, VAE_DECODER, VAE_ENCODER
from faceclip_serving.contract.request import parse_request
from faceclip_serving.contract.variants.sdxl import NANO, SDXL, TINY_SDXL
from faceclip_serving.models.prompts import encode_prompt, load_tokenizer


def test_a_variant_says_where_its_weights_are(tmp_path: Path) -> None:
    assert own_folder(NANO) == committed.WEIGHTS / "nano"
    assert own_folder(SDXL) is None and weights_folder(SDXL) is None and weights_folder(TINY_SDXL) is None
    assert weights_folder(NANO, tmp_path) == tmp_path  # what is given comes first, and is judged where it is read
    assert tokenizer_folders(NANO, None) == [committed.WEIGHTS / "nano" / "tokenizer"]
    assert tokenizer_folders(NANO, tmp_path) == [tmp_path / "tokenizer"]


def test_missing_weights_are_missed_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committed, "WEIGHTS", tmp_path)
    with pytest.raises(CheckpointError, match=r"variant 'nano' expects its own, \*\.safetensors, .*git checkout.*training all"):
        export_component(Export(NANO, FACE_ENCODER, "fp32"), tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_equal_tensors_are_stored_once_and_all_come_back(tmp_path: Path) -> None:
    shared = torch.randn(64, 64)
    tensors = {"a.weight": shared, "b.weight": shared.clone(), "b.flat": shared.flatten(), "b.bias": torch.zeros(3)}
    write_tensors(tensors, tmp_path / "once.safetensors")
    found = read_tensors(tmp_path / "once.safetensors")
    assert {name: value.tolist() for name, value in found.items()} == {name: v.tolist() for name, v in tensors.items()}
    # Of equal values in another shape both are kept.
    assert 2 * shared.nbytes < (tmp_path / "once.safetensors").stat().st_size < 3 * shared.nbytes
    save_file({"plain": shared}, tmp_path / "plain.safetensors", metadata={"format": "pt"})
    assert list(read_tensors(tmp_path / "plain.safetensors")) == ["plain"]


def test_equal_tensors_make_equal_files(tmp_path: Path) -> None:
    tensors = {name: torch.ones(2) for name in "abcdefgh"} | {"é": torch.ones(2)}
    files = [tmp_path / f"{i}.safetensors" for i in range(3)]
    for file in files:
        write_tensors(tensors, file)
    assert len({file.read_bytes() for file in files}) == 1
    assert read_tensors(files[0]).keys() == tensors.keys()


def test_half_precision_files_fill_a_network_in_full_precision_and_strictly(tmp_path: Path) -> None:
    def network() -> nn.Module:
        with torch.device("meta"):
            return nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))

    one = nn.Linear(3, 3).half().state_dict()
    tensors = {f"{i}.{name}": value for i in range(2) for name, value in one.items()}
    write_tensors(tensors, tmp_path / "unet.safetensors")
    module = network()
    load_part(module, tmp_path, "unet")
    assert all(value.dtype == torch.float32 for value in module.state_dict().values())
    assert torch.equal(module.get_parameter("1.weight"), one["weight"].float())
    write_tensors({**tensors, "2.weight": torch.zeros(1)}, tmp_path / "unet.safetensors")
    with pytest.raises(CheckpointError, match=r"1 not known to the network: 2\.weight"):
        load_part(network(), tmp_path, "unet")


def test_an_axis_of_one_size_is_traced_over_more() -> None:
    found = traced_bounds(NANO)
    cells = NANO.defaults.height // NANO.latent_scale
    for component in (DENOISER, VAE_DECODER):
        side = found[component]["latent_height"]
        assert (side.min, side.opt) == (cells, cells) and side.max > cells
    assert found[VAE_ENCODER]["height"].min == NANO.defaults.height < found[VAE_ENCODER]["height"].max
    assert traced_bounds(TINY_SDXL)[DENOISER]["latent_height"].max == TINY_SDXL.limits.height[1] // TINY_SDXL.latent_scale
    assert sizes(NANO) == [(128, 128), (128, 136)] and len(sizes(TINY_SDXL)) == 2


def test_nano_draws_pictures_of_one_height_and_reads_56_tokens(tmp_path: Path) -> None:
    def request(**values: object) -> dict[str, np.ndarray]:
        return {"prompt": np.array([b"a man"], object), **{k: np.array([v], np.int32) for k, v in values.items()}}

    assert parse_request(NANO, request()).height == parse_request(NANO, request()).width == 128
    assert parse_request(NANO, request(width=384)).width == 384
    with pytest.raises(InvalidRequest, match="height: expected a multiple of 8 from 128 to 128 pixels, got 256; try 128"):
        parse_request(NANO, request(height=256))
    write_tokenizers(NANO, None, tmp_path)
    (tokens,) = NANO.tokens
    encoded = encode_prompt(load_tokenizer(tmp_path / tokens.tokenizer), tokens, "a red hat " * 30 + "zebra", prefixed=True)
    assert encoded.ids.shape == (56,) and encoded.ids[0] == tokens.begin and encoded.ids[-1] == tokens.end
    assert encoded.ids.tolist().index(tokens.identity_token) < tokens.identity_window and "zebra" in encoded.dropped


def test_another_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="expects the id"):
        write_tokenizers(replace(NANO, tokens=(replace(NANO.tokens[0], identity_token=5),)), None, tmp_path)
