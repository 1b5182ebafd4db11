"""Lives on a clock that a test moves; and a step loop that ends with the test, whose encoders and decoder only hand on."""

from functools import partial

import pytest

from faceclip_serving.contract.names import VAE_DECODER
from faceclip_serving.sampling.life import Lives
from faceclip_serving.sampling.loop import StepLoop
from faceclip_serving.sampling.networks import decode_all, encode_all, inspect_all, schedule_all
from faceclip_serving.sampling.threads import Threads

from .limits import limited
from .lives import LIMITS, Clock


def latents_as_image(arrays):
    return {"image": arrays["latents"]}


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def lives(clock):
    ends = []
    made = Lives(LIMITS, lambda request, error: ends.append((request.place, error)), clock)
    made.ends = ends
    return made


@pytest.fixture
def start():
    started = []

    def make(denoiser, max_rows=8, limits=None, observer=None, decoder=latents_as_image, on_loss=lambda: None):
        lives = Lives(limits or limited(8, 8))
        loop = StepLoop(lives, denoiser, max_rows, observer)
        work = {
            "step-loop": loop.run,
            "schedules": partial(schedule_all, lives),
            "encoder": partial(encode_all, lives),
            "decoder": partial(decode_all, lives, {VAE_DECODER: decoder}),
            "details": partial(inspect_all, lives),
        }
        started.append(Threads(lives, work, on_loss))
        return lives, loop, started[-1]

    yield make
    for threads in started:
        threads.stop()
