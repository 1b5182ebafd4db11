"""The limit to the search in one request's photographs."""

import cv2
import numpy as np
import pytest

from faceclip_serving.contract.errors import Cancelled, DeadlineExceeded, InvalidRequest
from faceclip_serving.face.budget import SharingCores, WithinBudget
from faceclip_serving.face.detectors import YuNet

PICTURE = np.zeros((64, 64, 3), np.uint8)


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_a_search_goes_on_as_long_as_its_own_time_lasts():
    used, clock = Clock(), Clock()
    detect = WithinBudget(YuNet(), 2.0, used=used, clock=clock)
    assert detect.name == "yunet" and detect(PICTURE) == []
    clock.now += 1000.0  # others took the core meanwhile
    used.now += 2.0
    assert detect(PICTURE) == []
    used.now += 0.1
    with pytest.raises(InvalidRequest, match=r"face_images: the search .* more than 2 s; send fewer"):
        detect(PICTURE)


def test_a_search_for_which_nobody_waits_ends():
    clock = Clock()
    detect = WithinBudget(YuNet(), 2.0, 101.0, used=Clock(), clock=clock)
    clock.now = 101.0
    detect(PICTURE)
    clock.now = 101.1
    with pytest.raises(DeadlineExceeded, match="photographs were searched"):
        detect(PICTURE)


def test_time_is_that_of_the_calling_thread():
    detect = WithinBudget(YuNet(), 0.0)
    sum(range(10**6))
    with pytest.raises(InvalidRequest):
        detect(PICTURE)


def test_a_search_that_nobody_waits_for_any_more_ends():
    left = []
    detect = WithinBudget(YuNet(), 2.0, gone=lambda: bool(left))
    detect(PICTURE)
    left.append(True)
    with pytest.raises(Cancelled):
        detect(PICTURE)


def test_whoever_is_alone_has_all_cores_and_among_others_one():
    """Asked before each search, since others come and go while a request's photographs are searched."""
    crowd = [False, True, False]
    before, used = cv2.getNumThreads(), []

    class Counting(YuNet):
        def __call__(self, image):
            used.append(cv2.getNumThreads())
            return super().__call__(image)

    detect = SharingCores(Counting(), lambda: crowd.pop(0))
    try:
        assert detect.name == "yunet"
        assert [detect(PICTURE) for _ in range(3)] == [[], [], []]
    finally:
        cv2.setNumThreads(before)
    assert used == [cv2.getNumberOfCPUs(), 1, cv2.getNumberOfCPUs()]
