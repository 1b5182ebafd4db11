"""Faces where a test says that they are, and plain callables as the networks that draw them again."""

import numpy as np

from faceclip_serving.contract.names import FACE_ENCODER, TEXT_ENCODER, VAE_DECODER, VAE_ENCODER
from faceclip_serving.contract.variants.sdxl import TINY_SDXL
from faceclip_serving.face.alignment import TEMPLATE
from faceclip_serving.face.detectors import Box, Face

from .test_pictures import conditioning

SCALE = TINY_SDXL.latent_scale


def face(x, y, width):
    """An upright face whose box is `width` wide and has its left upper corner there."""
    box = Box(x, y, width, 1.3 * width)
    landmarks = TEMPLATE / 448 * 1.2 * width + np.array([x - 0.1 * width, y])
    return Face(box, landmarks, 0.9)


def decoder(arrays):
    """Colours of the first three channels, 8 pixels a cell."""
    cells = 0.5 + 0.2 * np.tanh(arrays["latents"][:, :3])
    return {"image": cells.repeat(SCALE, 2).repeat(SCALE, 3).astype(np.float32)}


def encoder(arrays):
    """The middle of each cell, in four channels."""
    middle = arrays["picture"][:, :, SCALE // 2 :: SCALE, SCALE // 2 :: SCALE]
    mean = np.concatenate([middle, middle[:, :1]], axis=1) * 2 - 1
    return {"latent_mean": mean.astype(np.float32), "latent_std": np.full_like(mean, 0.1, np.float32)}


def face_encoder(arrays):
    sizes = {"faces": len(arrays["face_crops"])}
    return {tensor.name: np.zeros(tensor.shape(sizes), np.float32) for tensor in TINY_SDXL.face_features}


NETWORKS = {
    FACE_ENCODER: face_encoder,
    TEXT_ENCODER: lambda arrays: conditioning(int(arrays["input_ids"][0, 0])),
    VAE_ENCODER: encoder,
    VAE_DECODER: decoder,
}
