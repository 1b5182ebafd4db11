"""Why requests have ended is kept for a while. The requests themselves, their tensors and their work are not."""

import gc
import weakref

import pytest

from faceclip_serving.contract.errors import Busy, Cancelled, InvalidRequest
from faceclip_serving.sampling.life import Lives

from .limits import limited


class Tensors:
    """Stands where a request's arrays are: in the frames that an error passes through."""


def failing(seen, error):
    arrays = Tensors()
    seen.append(weakref.ref(arrays))
    raise error


def gone(seen):
    gc.collect()
    return [each() for each in seen] == [None] * len(seen)


def test_the_reason_of_an_end_holds_nothing_of_the_request():
    lives, seen = Lives(limited()), []
    place = lives.admit().place
    try:
        failing(seen, InvalidRequest("scheduler_options: cannot be run"))
    except InvalidRequest as error:
        lives.end(place, error)
    lives.messages.put(None)
    lives.deliver()
    assert gone(seen)
    assert isinstance(lives.why(place), InvalidRequest) and str(lives.why(place)) == "scheduler_options: cannot be run"


def test_whoever_is_told_a_reason_hangs_nothing_on_it():
    lives, seen = Lives(limited()), []
    place = lives.admit().place
    lives.end(place, Cancelled("the caller is gone"))

    def enter():
        arrays = Tensors()
        seen.append(weakref.ref(arrays))
        lives.enter(place, lambda: arrays, lambda event: None)

    for _ in range(2):
        with pytest.raises(Cancelled, match="the caller is gone"):
            enter()
    assert gone(seen)


class Odd(Exception):
    """One that cannot be made again from its arguments."""

    def __init__(self, *, needed):
        super().__init__(needed)


def test_every_kind_of_error_keeps_its_words_and_what_it_says_besides():
    lives = Lives(limited())
    for error, told in ((Busy("busy", "displaced"), "busy"), (Odd(needed="words"), "Odd: words")):
        place = lives.admit().place
        lives.end(place, error)
        assert str(lives.why(place)) == told
        assert getattr(lives.why(place), "reason", None) == getattr(error, "reason", None)
