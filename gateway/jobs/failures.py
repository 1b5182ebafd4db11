"""What can be wrong with a call about jobs. `routes` turns each into an answer."""

from __future__ import annotations

from .states import Status


class JobsError(Exception):
    """Base of all."""


class UnknownJobError(JobsError):
    """No such job, or it is somebody else's."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"no job '{job_id}'; jobs are forgotten some time after their results were swept")


class WrongStateError(JobsError):
    """A transition that may not be. `status`: what the job is."""

    def __init__(self, job_id: str, status: Status, wanted: Status) -> None:
        super().__init__(f"job '{job_id}' is {status}, so it cannot become {wanted}")
        self.status = status


class KeyReusedError(JobsError):
    """An idempotency key came back with another request."""

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"Idempotency-Key: job '{job_id}' was made with it by another request; use a new key for each new request"
        )


class StoreFullError(JobsError):
    """As many jobs as the store takes are waiting."""

    def __init__(self, most: int) -> None:
        super().__init__(f"the job store is full: {most} jobs are waiting or being drawn; try again later")


class StoreUnwritableError(JobsError):
    """The disk is full, read-only, or broken. What was accepted before is kept."""


class FolderInUseError(JobsError):
    """Another gateway works in the data folder."""


class WebhookRefusedError(JobsError):
    """An address that is not told of anything."""
