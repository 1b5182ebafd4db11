"""Limits of tests that do not care about all of them."""

from faceclip_serving.sampling.requests import Limits


def limited(max_active: int = 8, max_waiting: int = 32, lease_s: float = 5.0, batch_head_start_s: float = 30.0) -> Limits:
    return Limits(max_active, max_waiting, lease_s, batch_head_start_s)
