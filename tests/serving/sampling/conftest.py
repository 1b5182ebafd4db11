"""A step loop that ends with the test."""

import pytest

from faceclip_serving.sampling.life import Lives
from faceclip_serving.sampling.loop import StepLoop

from .limits import limited


@pytest.fixture
def start():
    loops = []

    def make(denoiser, max_rows=8, limits=None, observer=None):
        lives = Lives(limits or limited(8, 8))
        loops.append(StepLoop(lives, denoiser, max_rows, observer))
        return lives, loops[-1]

    yield make
    for loop in loops:
        loop.stop()
