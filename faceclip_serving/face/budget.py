"""Limits to the time and the cores that the search for faces in one request's photographs may take."""

from __future__ import annotations

import time
from collections.abc import Callable

import cv2

from ..contract.errors import Cancelled, DeadlineExceeded, InvalidRequest
from .detectors import Detector, Face
from .photos import Pixels


class WithinBudget:
    """A detector that refuses when its time is used up, or when nobody waits any more.

    Time is that of the calling thread on a core, so that what others do at the same time does not count.
    """

    def __init__(
        self,
        detect: Detector,
        budget_s: float,
        deadline: float | None = None,
        gone: Callable[[], bool] = lambda: False,
        used: Callable[[], float] = time.thread_time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`deadline`: seconds of `clock`. `gone`: whether nobody waits any more. The budget begins now."""
        self.name = detect.name
        self._detect = detect
        self._budget_s = budget_s
        self._deadline = deadline
        self._gone = gone
        self._used = used
        self._clock = clock
        self._began = used()

    def __call__(self, image: Pixels) -> list[Face]:
        """Raises `InvalidRequest`, `DeadlineExceeded`, `Cancelled`."""
        if self._gone():
            raise Cancelled("the request has ended while its photographs were searched")
        if self._deadline is not None and self._clock() > self._deadline:
            raise DeadlineExceeded("the request's timeout ran out while its photographs were searched; allow more time")
        if self._used() - self._began > self._budget_s:
            raise InvalidRequest(
                f"face_images: the search for faces, in image too, took more than {self._budget_s:g} s; send fewer or smaller ones,"
                " cropped to the person, or aligned crops with face_aligned"
            )
        return self._detect(image)


class SharingCores:
    """A detector that takes every core while no other request has photographs, and one core among others.

    So each thread that prepares takes one core, and a request that is alone waits for no core that nobody uses.
    """

    def __init__(self, detect: Detector, crowded: Callable[[], bool]) -> None:
        self.name = detect.name
        self._detect = detect
        self._crowded = crowded

    def __call__(self, image: Pixels) -> list[Face]:
        cv2.setNumThreads(1 if self._crowded() else cv2.getNumberOfCPUs())  # of the whole process
        return self._detect(image)
