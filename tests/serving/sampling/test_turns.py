"""Remembered turns are those that would be found anew, whatever the pictures are and however long they go on."""

import gc
import weakref
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from faceclip_serving.sampling.guidance import Chain
from faceclip_serving.sampling.pictures import Picture, select
from faceclip_serving.sampling.turns import Choices

BRANCHES = ("unconditional", "text", "identity")


@dataclass(eq=False)
class Turned(Picture):
    """A picture as far as its turn depends on it; `strides`: how many steps each of its turns takes."""

    shape: tuple[int, ...]
    chains: tuple[Chain, ...]
    strides: list[int] = field(default_factory=lambda: [1])
    step: int = 0
    last_tick: int = -1
    _people: None = None

    @property
    def row_shape(self):
        return (self.shape,)

    def turn(self, tick):
        self.strides.append(self.strides.pop(0))
        self.step = min(self.step + self.strides[-1], len(self.chains))
        self.last_tick = tick


@dataclass(eq=False)
class Work:
    pictures: list[Turned]


@dataclass(eq=False)
class Request:
    work: Work


def chain(count):
    return Chain(BRANCHES[-count:], (2.0,) * (count - 1))


PICTURES = st.builds(
    Turned,
    shape=st.sampled_from([(1, 4, 8, 8), (1, 4, 8, 16)]),
    chains=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 6)), min_size=1, max_size=3).map(
        lambda parts: tuple(chain(count) for count, steps in parts for _ in range(steps))
    ),
    strides=st.lists(st.integers(1, 2), min_size=1, max_size=3),
)


def test_what_is_gone_is_not_kept():
    choices, gone = Choices(4), Turned((1, 4, 8, 8), (chain(2),) * 4)
    choices.next([Request(Work([gone]))])
    kept = weakref.ref(gone)
    del gone
    choices.next([Request(Work([Turned((1, 4, 8, 8), (chain(2),) * 4)]))])
    gc.collect()
    assert kept() is None


@settings(max_examples=200)
@given(st.lists(st.lists(PICTURES, min_size=1, max_size=3), min_size=1, max_size=5), st.integers(2, 8), st.integers(1, 7))
def test_every_turn_is_the_one_that_select_would_find(works, max_rows, comes):
    requests, later = [Request(Work(pictures)) for pictures in works[:2]], works[2:]
    choices, tick = Choices(max_rows), 0
    pictures = [picture for each in requests for picture in each.work.pictures]
    while expected := select(pictures, max_rows):
        groups = choices.next(requests)
        assert sorted(map(id, expected)) == sorted(id(picture) for _, chosen in groups for picture in chosen)
        assert all(picture in request.work.pictures for request, chosen in groups for picture in chosen)
        for picture in expected:
            picture.turn(tick)
        tick += 1
        if later and tick % comes == 0:  # a request comes, or ends: the list is another one
            requests = [*requests, Request(Work(later.pop()))]
        elif all(picture.done for picture in requests[0].work.pictures) and len(requests) > 1:
            requests = requests[1:]
        pictures = [picture for each in requests for picture in each.work.pictures]
    assert choices.next(requests) == []


def test_turns_that_come_again_are_not_searched_for_again(monkeypatch):
    searched = []
    search = Choices._found
    monkeypatch.setattr(Choices, "_found", lambda self, requests: searched.append(1) or search(self, requests))
    pictures = [Turned((1, 4, 8, 8), (chain(2),) * 40) for _ in range(4)]
    requests, choices = [Request(Work([picture])) for picture in pictures], Choices(4)
    for tick in range(40):
        for _, chosen in choices.next(requests):
            for picture in chosen:
                picture.turn(tick)
    assert len(searched) <= 4, "two pairs take turns"
