"""Whose turn it is: which pictures of which requests a round of the denoiser is for."""

from __future__ import annotations

from dataclasses import dataclass

from .picture import Picture
from .pictures import fitting, in_turn
from .requests import Request

Group = tuple[Request, list[Picture]]
"""A request and those of its pictures that a round is for."""


@dataclass(eq=False)
class Choice:
    """Whom a round is for."""

    groups: list[Group]
    alike_until: list[tuple[Picture, int]]
    """Its pictures, and the step at which each needs other rows, or none."""
    after: Choice | None = None
    """Whom the next round is for, once that is known."""

    def unchanged(self) -> bool:
        """Whether its pictures, now that they were served, come back as they were."""
        return all(picture.step < until for picture, until in self.alike_until)


class Choices:
    """Whom rounds are for, one after the other. The same requests take the same turns again, so what was found is remembered."""

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows
        self.forget()

    def forget(self) -> None:
        """Drops references to what is gone."""
        self._requests: list[Request] = []
        self._known: dict[tuple[tuple[Picture, int], ...], Choice] = {}
        self._last: Choice | None = None

    def next(self, requests: list[Request]) -> list[Group]:
        """Those of `requests` whom this round is for, in the order of their rows. An unchanged list means unchanged requests."""
        if requests is not self._requests:
            self.forget()
            self._requests = requests
        last = self._last
        choice = last.after if last is not None and last.unchanged() else None
        if choice is None:
            choice = self._found(requests)
            if last is not None and last.unchanged():
                last.after = choice
        self._last = choice
        return choice.groups

    def _found(self, requests: list[Request]) -> Choice:
        works = [(request, request.work) for request in requests]
        owner = {picture: request for request, work in works if work is not None for picture in work.pictures}
        waiting = in_turn(owner)
        key = tuple((picture, picture.steps_alike()) for picture in waiting)
        if key not in self._known:
            groups: dict[Request, list[Picture]] = {}
            for picture in fitting(waiting, self._max_rows):
                groups.setdefault(owner[picture], []).append(picture)
            until = dict(key)
            chosen = [(picture, until[picture]) for pictures in groups.values() for picture in pictures]
            self._known[key] = Choice(list(groups.items()), chosen)
        return self._known[key]
