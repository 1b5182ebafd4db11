"""Every answer, begun or not, early or late, after few losses or many: the job waits again, or fails with the right words."""

from itertools import product

import pytest

from gateway.errors import ApiError
from gateway.jobs.fates import LOSSES, Again, fate
from gateway.jobs.records import Job
from gateway.jobs.states import Status

DEADLINE = 1000.0
AWAY = {"server_unavailable": 503, "server_busy": 503, "rate_limit_exceeded": 429}
BROKEN = {"server_error": 500, "deadline_exceeded": 504}
REFUSED = {"invalid_value": 400, "model_not_allowed": 403, "model_not_found": 404, "internal_error": 500, "policy.minor": 400}


def job(losses):
    told = {"number": 1, "id": "job_1", "owner": "", "tenant": "", "kind": "image_generation", "priority": "interactive"}
    return Job(
        **told, model="nano", webhook_url=None, status=Status.GENERATING, created=0.0, started=1.0, ended=None, deadline=DEADLINE,
        expires=None, attempts=1, losses=losses, swept=False, result=None, error=None,
    )  # fmt: skip


def answer(code):
    return ApiError({**AWAY, **BROKEN, **REFUSED}[code], "it said no", code=code, retry_after_s=7.0)


CASES = list(product([False, True], [0.0, DEADLINE], [0, LOSSES - 1]))


@pytest.mark.parametrize("begun, now, losses", CASES)
@pytest.mark.parametrize("code", REFUSED)
def test_what_is_refused_fails_with_its_own_words(code, begun, now, losses):
    refused = answer(code)
    assert fate(refused, job(losses), begun, now) is refused


@pytest.mark.parametrize("begun, now, losses", CASES)
@pytest.mark.parametrize("code", [*AWAY, *BROKEN])
def test_what_may_pass_is_tried_again_until_the_deadline_or_the_last_loss(code, begun, now, losses):
    said = answer(code)
    lost = code in BROKEN or (begun and code != "server_busy")
    found = fate(said, job(losses), begun, now)
    if now == DEADLINE:
        assert isinstance(found, ApiError) and found.code == "deadline_exceeded" and "it said no" in str(found)
    elif lost and losses == LOSSES - 1:
        assert found is said
    else:
        told_s = 7.0 if code == "server_busy" else None
        assert found == Again(lost, "nano" if code in AWAY else "job_1", told_s)
