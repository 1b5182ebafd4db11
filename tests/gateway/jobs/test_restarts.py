"""Gateway and server are killed while jobs are drawn: every accepted job ends once, with its own picture."""

import pytest

from benchmarks.gateway.restarts import restarts
from benchmarks.measure.sleeping import QUICK, with_sleeping_denoiser


@pytest.mark.proof
@pytest.mark.server
def test_no_job_is_lost_or_doubled(repository, tmp_path):
    with with_sleeping_denoiser(repository, QUICK) as sleeping:
        found = restarts(sleeping, tmp_path, jobs=12, gateway_kills=2, server_kills=1)
    assert found["statuses"] == {"completed": 12}
    for name in ("lost_jobs", "duplicated_jobs", "wrong_pictures", "untold_webhooks", "photographs_left"):
        assert found[name] == 0, found
    assert found["second_gateway_refused"]
