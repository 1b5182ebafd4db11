"""Lives without threads, on a clock that a test moves: what a test does with a request, here and now."""

import queue

from faceclip_serving.sampling.requests import State

from .limits import limited
from .stages import decode, enter

LIMITS = limited(max_active=2, max_waiting=2, lease_s=5.0)

DRAWN = (State.ACTIVE, State.DECODING, State.DETAILING, State.FINISHING)


def reach(lives, place, state):
    """Brings a request whose work waits for the loop to one of `DRAWN`."""
    (request,) = (each for each in active(lives) if each.place == place)
    if state is not State.ACTIVE:
        lives.finish(request, "result")
    if state is State.DETAILING:
        lives.next_in(State.DECODING)
        lives.inspect(request, "look")
    if state is State.FINISHING:
        decode(lives)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def delivered(lives):
    """Says what is to be said, here and now."""
    while True:
        try:
            lives.messages.get_nowait()()
        except queue.Empty:
            return


def working(lives, heard, place=None, tenant="", **options):
    place = place or lives.admit(tenant=tenant).place
    enter(lives, place, heard.append, **options)
    return place


def gone(lives, place):
    """Whether the request has ended, asked as its preparation would."""
    try:
        lives.prepare(place)
    except Exception:  # noqa: BLE001 - whatever it has ended by
        return True
    return False


def active(lives):
    """Places of the active requests, without waiting."""
    lives._promoted()
    return [request for request in lives._alive.values() if request.state is State.ACTIVE]
