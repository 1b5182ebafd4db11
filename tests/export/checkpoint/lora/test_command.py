"""`--lora` on the command line, and the export that computes with it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from export.__main__ import main
from export.checkpoint.lora import Lora, LoraError, parse_lora
from export.networks.components import build, loras_of
from export.onnx import export as to_onnx
from export.onnx import parity
from export.onnx.errors import ExportError
from export.onnx.export import export_component
from export.onnx.wanted import Export
from faceclip_serving.contract.components import bounds, components
from faceclip_serving.contract.names import COMPONENTS, DENOISER, FACE_ENCODER
from faceclip_serving.contract.variants.sdxl import TINY_SDXL
from tests.export.micro import MICRO

from .files import QUERY, RESNET, SCALE, UNET_LAYERS, adapter, in_kohya, written
from .reference import by_diffusers, sdxl_pipeline


def test_a_lora_on_the_command_line(tmp_path):
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"no safetensors")
    assert parse_lora(f"{file}:0.8") == Lora(file, 0.8) and parse_lora(str(file)) == Lora(file, 1.0)
    with pytest.raises(LoraError, match="expected FILE or FILE:SCALE"):
        parse_lora("missing.safetensors:0.8")
    with pytest.raises(LoraError, match="expected a finite scale"):
        parse_lora(f"{file}:nan")
    with pytest.raises(LoraError, match="expected a safetensors file"):
        loras_of(MICRO, DENOISER, [Lora(file)])


def test_a_file_that_cannot_be_fused_ends_the_command_before_the_first_component(unet, tmp_path, capsys, monkeypatch):
    with torch.device("meta"):
        network = UNet2DConditionModel(**TINY_SDXL.architecture.unet)
    layer = next(name for name, _ in network.named_modules() if name.endswith("attn1.to_q"))
    good = adapter(network, [layer], "unet.")
    stray = {key.replace("attn1", "attn3"): value for key, value in good.items()}
    monkeypatch.setattr(to_onnx, "export_components", lambda *_: pytest.fail("the export began"))
    file = written(tmp_path, good | stray).path
    arguments = [
        "onnx",
        "--variant",
        "tiny-sdxl",
        "--component",
        FACE_ENCODER,
        "--lora",
        str(file),
        "--output",
        str(tmp_path / "out"),
    ]
    assert main(arguments) == 1
    assert "attn3" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.proof
def test_the_exported_graph_computes_with_the_lora_and_is_made_again_for_another_scale(unet, tmp_path, monkeypatch):
    tensors = adapter(unet, [QUERY, RESNET])
    given, folder = written(tmp_path, in_kohya(tensors, unet, 6.0)), tmp_path / "denoiser"
    metadata = export_component(Export(MICRO, DENOISER, "fp32", loras=(given,)), folder)
    assert metadata["loras"] == [{**given.describe(), "scale": SCALE}]
    signature = components(MICRO)[DENOISER]
    case = parity.cases(MICRO, signature, bounds(MICRO, 8)[DENOISER])[1]
    reference = build(MICRO, DENOISER)
    plain = parity.torch_run(reference, signature)(case.inputs)["noise_pred"].copy()
    reference.unet.load_state_dict(by_diffusers(sdxl_pipeline(unet), given).unet.state_dict())
    expected = parity.torch_run(reference, signature)(case.inputs)["noise_pred"]
    found = parity.onnx_run(folder / "model.onnx", signature)(case.inputs)["noise_pred"]
    assert np.abs(found - expected).max() < 5e-5 * np.abs(expected).max() < np.abs(plain - expected).max()
    assert export_component(Export(MICRO, DENOISER, "fp32", loras=(given,)), folder) == metadata
    monkeypatch.setattr(to_onnx, "_make", lambda *_: {})
    again = export_component(Export(MICRO, DENOISER, "fp32", loras=(replace(given, scale=0.8),)), folder)
    assert again["identity"] != metadata["identity"]
    with pytest.raises(ExportError, match=r"was made with LoRA style.safetensors:0.8, and nothing like it is named now"):
        export_component(Export(MICRO, DENOISER, "fp32"), folder)


def test_only_the_components_that_a_file_names_are_changed(unet, tmp_path):
    given = written(tmp_path, adapter(unet, UNET_LAYERS, "unet."))
    reached = {component for component in COMPONENTS if loras_of(MICRO, component, [given])}
    assert reached == {DENOISER}
