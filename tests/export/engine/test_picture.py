"""A picture drawn twice, ONNX Runtime in both places."""

import math
from contextlib import contextmanager

import numpy as np
import pytest

from export.engine.errors import EngineError
from export.engine.verify import require_alike, verify_picture
from export.onnx import parity
from export.onnx.draw import draw, psnr_db
from faceclip_serving.contract.components import components
from faceclip_serving.contract.names import COMPONENTS, DENOISER, OCCASIONAL
from faceclip_serving.contract.placements import ONNX_FILE
from faceclip_serving.contract.variants.sdxl import TINY_SDXL


def opener(folder, spoil=lambda component, outputs: outputs):
    @contextmanager
    def open_component(component):
        run = parity.onnx_run(folder / component / ONNX_FILE, components(TINY_SDXL)[component])
        yield lambda arrays: spoil(component, run(arrays))

    return open_component


def test_a_picture_is_the_same_every_time_and_depends_on_its_size(tiny_fp32):
    first, again = (draw(TINY_SDXL, 64, 96, 2, opener(tiny_fp32)) for _ in range(2))
    assert first.shape == (1, 3, 64, 96) and first.std() > 0.01
    assert psnr_db(first, again) > 100


@pytest.mark.proof
@pytest.mark.parametrize("component", [name for name in COMPONENTS if name not in OCCASIONAL])
def test_a_fault_of_any_component_that_every_request_needs_shows_in_the_picture(tiny_fp32, component):
    def spoil(name, outputs):
        return {key: values * 0.5 for key, values in outputs.items()} if name == component else outputs

    reference = draw(TINY_SDXL, 64, 64, 4, opener(tiny_fp32))
    assert psnr_db(draw(TINY_SDXL, 64, 64, 4, opener(tiny_fp32, spoil)), reference) < 100


def test_a_picture_that_differs_or_is_not_finite_is_refused(tiny_fp32):
    def spoil(name, outputs):
        return {key: values * 0.5 for key, values in outputs.items()} if name == DENOISER else outputs

    reference = draw(TINY_SDXL, 64, 64, 4, opener(tiny_fp32))
    with pytest.raises(EngineError, match=r"picture is \d+\.\d dB from ONNX Runtime's, expected at least 35"):
        require_alike(draw(TINY_SDXL, 64, 64, 4, opener(tiny_fp32, spoil)), reference)
    with pytest.raises(EngineError, match="picture is nan dB"):
        require_alike(reference * np.nan, reference)


def test_without_plans_both_are_onnx_runtime(tiny_fp32):
    placed = {component: (tiny_fp32 / component, None) for component in COMPONENTS}
    assert verify_picture(TINY_SDXL, placed, steps=1) > 100


def test_psnr():
    grey = np.full((1, 3, 8, 8), 0.5, np.float32)
    assert psnr_db(grey, grey) == math.inf
    assert psnr_db(grey + 0.1, grey) == pytest.approx(20, abs=1e-4)
    assert require_alike(grey + 0.01, grey) == pytest.approx(40, abs=1e-3)
