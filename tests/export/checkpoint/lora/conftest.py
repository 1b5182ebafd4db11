"""The networks that files are made for."""

import pytest
from diffusers import FluxTransformer2DModel

from export.networks.components import build
from faceclip_serving.contract.names import DENOISER
from tests.export.micro import MICRO

from .files import FLUX


@pytest.fixture(scope="module")
def unet():
    return build(MICRO, DENOISER).unet


@pytest.fixture(scope="module")
def transformer():
    return FluxTransformer2DModel.from_config(FLUX.architecture.transformer).eval()
