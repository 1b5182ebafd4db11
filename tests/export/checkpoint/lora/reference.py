"""What diffusers and peft make of a file, and what ours does: the weights of both, and how they are compared."""

import peft
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from export.checkpoint import deferred
from export.networks.components import build, loras_of
from faceclip_serving.contract.names import DENOISER
from tests.export.micro import MICRO

from .files import CLIP, FLUX, IN_CLIP, SCALE

PACKED = {"q_proj": 0, "k_proj": 1, "v_proj": 2}


def unet_copy(unet):
    copy = UNet2DConditionModel.from_config(unet.config)
    copy.load_state_dict(unet.state_dict())
    return copy


def clip_of(sizes, kind):
    torch.manual_seed(7)
    config = CLIPTextConfig(
        vocab_size=99, hidden_size=sizes.width, intermediate_size=4 * sizes.width, projection_dim=sizes.width,
        num_hidden_layers=sizes.layers, num_attention_heads=sizes.heads,
    )  # fmt: skip
    return kind(config)


def sdxl_pipeline(unet):
    first, second = MICRO.architecture.towers.values()
    return StableDiffusionXLPipeline(
        vae=None, text_encoder=clip_of(first, CLIPTextModel), text_encoder_2=clip_of(second, CLIPTextModelWithProjection),
        tokenizer=None, tokenizer_2=None, unet=unet_copy(unet), scheduler=None,
    )  # fmt: skip


def by_diffusers(pipeline, lora):
    """The pipeline with the file loaded and fused by diffusers itself, at the same scale."""
    pipeline.load_lora_weights(str(lora.path))
    names = [
        name for name in ("unet", "transformer", "text_encoder", "text_encoder_2") if getattr(pipeline, name, None) is not None
    ]
    pipeline.fuse_lora(components=names, lora_scale=lora.scale)
    pipeline.unload_lora_weights()
    return pipeline


def fused(monkeypatch, variant, component, lora):
    """The network of ours with a file fused; every large weight deferred, as at full size."""
    monkeypatch.setattr(deferred, "LARGE", 256)
    assert loras_of(variant, component, [lora]) == [lora]
    module = build(variant, component, loras=[lora])
    return module


def fused_unet(monkeypatch, lora):
    return whole_state(fused(monkeypatch, MICRO, DENOISER, lora).unet)


def whole_state(module):
    return {name: deferred.values(tensor) for name, tensor in [*module.named_parameters(), *module.named_buffers()]}


def require_equal(found, expected, before, layers):
    changed = {name.removesuffix(".weight") for name in found if not torch.equal(found[name], before[name])}
    assert changed == set(layers)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=2e-6, atol=2e-6)


def in_peft(unet, config, folder):
    """A file that peft saved, with values in all its tensors, and the weights that peft merges them to."""
    torch.manual_seed(3)
    model = peft.get_peft_model(unet_copy(unet), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "hada_" in name or "lokr_" in name:
                parameter.copy_(torch.rand_like(parameter) + 0.5 if "magnitude" in name else torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
    loaded = peft.PeftModel.from_pretrained(unet_copy(unet), folder)
    for module in loaded.modules():
        if isinstance(module, peft.tuners.tuners_utils.BaseTunerLayer):
            module.scale_layer(SCALE)
    return loaded.merge_and_unload().state_dict()


def clip_layer(encoder, name):
    return encoder.get_submodule(name if hasattr(encoder, "text_model") else name.removeprefix("text_model."))


class Renamed(torch.nn.Module):
    """A CLIP whose layers are found under the names that files have."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def get_submodule(self, name):
        return clip_layer(self.encoder, name)


def tower_into(clip, state, tower):
    """Gives a CLIP the weights of one of our towers."""
    for name in [*IN_CLIP, f"{CLIP}.self_attn.k_proj"]:
        clip_layer(clip, name).weight.data = tower_matrix(state, tower, name).clone()


def tower_matrix(state, tower, name):
    block, last = f"{tower}.transformer.resblocks.0", name.rsplit(".", 1)[1]
    if last in PACKED:
        return state[f"{block}.attn.in_proj_weight"].chunk(3)[PACKED[last]]
    return state[f"{block}.{ {'out_proj': 'attn.out_proj', 'fc1': 'mlp.c_fc', 'fc2': 'mlp.c_proj'}[last] }.weight"]


def flux_pipeline(transformer):
    copy = FluxTransformer2DModel.from_config(transformer.config)
    copy.load_state_dict(transformer.state_dict())
    return FluxPipeline(
        scheduler=None, vae=None, text_encoder=clip_of(FLUX.architecture.pooled, CLIPTextModel), tokenizer=None, text_encoder_2=None,
        tokenizer_2=None, transformer=copy,
    )  # fmt: skip
