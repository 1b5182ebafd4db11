"""What the sampler's other threads do, here and now: for tests of lives without threads."""

from faceclip_serving.sampling.requests import State


def encode(lives, steps=lambda: 0):
    """Encodes the next request."""
    request, begin = lives.next_in(State.ENCODING)
    lives.encoded(request, begin(), steps)


def enter(lives, place, listener, work="work", steps=lambda: 0, **options):
    """A request whose work is ready for the loop."""
    lives.enter(place, lambda: work, listener, **options)
    encode(lives, steps)


def decode(lives):
    """Decodes the next request: what it hears is what the loop has made."""
    request, result = lives.next_in(State.DECODING)
    lives.decoded(request, result)
    return request


def finish(lives, request, result="result"):
    """A request whose pictures are drawn and decoded."""
    lives.finish(request, result)
    decode(lives)
