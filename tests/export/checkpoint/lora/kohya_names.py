"""The names that kohya's scripts give to the layers of SDXL's UNet: those of Stability's own code."""

_OUTSIDE_BLOCKS = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_IN_RESNET = {
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def kohya_name(name, unet):
    """`mid_block.resnets.1.conv1` -> `lora_unet_middle_block_2_in_layers_2`. `unet`: the UNet's configuration."""
    return "lora_unet_" + _stability_name(name, unet).replace(".", "_")


def _stability_name(name, unet):
    if name in _OUTSIDE_BLOCKS:
        return _OUTSIDE_BLOCKS[name]
    resnets = unet.get("layers_per_block", 2)
    if name.startswith("mid_block"):
        _, kind, index, *rest = name.split(".")
        place = f"middle_block.{2 * int(index) if kind == 'resnets' else 1}"
    else:
        blocks, block, kind, index, *rest = name.split(".")
        down = blocks == "down_blocks"
        at = int(block)
        in_block = resnets if down else resnets + 1
        number = at * (resnets + 1) + (in_block if kind == "downsamplers" else resnets if kind == "upsamplers" else int(index))
        has_attention = "CrossAttn" in unet["down_block_types" if down else "up_block_types"][at]
        inner = {"resnets": 0, "attentions": 1, "downsamplers": 0, "upsamplers": 1 + has_attention}[kind]
        place = f"input_blocks.{number + 1}.{inner}" if down else f"output_blocks.{number}.{inner}"
    last = ".".join(rest)
    if kind == "resnets":
        last = _IN_RESNET[last]
    elif kind == "downsamplers":
        last = "op"
    return f"{place}.{last}"
