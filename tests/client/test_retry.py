from __future__ import annotations

import pytest

from faceclip import InvalidRequestError, ServerBusyError, ServerError, ServerUnavailableError
from faceclip.retry import CONNECT_RETRIES, LOST_RETRIES, MAX_DELAY_S, Retry


def _refused() -> ServerUnavailableError:
    error = ServerUnavailableError("connection refused")
    error.safe_to_retry = True
    return error


def _busy(retry_after_s: float | None = None) -> ServerBusyError:
    error = ServerBusyError("busy")
    error.retry_after_s = retry_after_s
    return error


def test_a_refused_connection_is_tried_again_a_bounded_number_of_times_with_growing_delays() -> None:
    retry = Retry(timeout_s=600)
    delays = [retry.delay_s(_refused()) for _ in range(CONNECT_RETRIES)]
    assert all(delays[i + 1] > delays[i] for i in range(len(delays) - 1))
    with pytest.raises(ServerUnavailableError, match="connection refused"):
        retry.delay_s(_refused())


@pytest.mark.parametrize(
    "error", [ServerUnavailableError("Socket closed"), ServerError("boom"), InvalidRequestError("seed: no")]
)
def test_what_may_have_run_is_never_sent_again(error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        Retry(timeout_s=600, busy_retries=9).delay_s(error)
    assert raised.value is error


def test_what_was_lost_is_sent_again_once_where_it_may_be_repeated() -> None:
    error = ServerUnavailableError("Socket closed")
    error.lost = True
    with pytest.raises(ServerUnavailableError):
        Retry(timeout_s=600, busy_retries=9).delay_s(error)
    retry = Retry(timeout_s=600, repeatable=True)
    assert [retry.delay_s(error) > 0 for _ in range(LOST_RETRIES)] == [True]
    with pytest.raises(ServerUnavailableError):
        retry.delay_s(error)


def test_a_busy_server_is_asked_again_only_if_the_caller_wants_it() -> None:
    with pytest.raises(ServerBusyError):
        Retry(timeout_s=600).delay_s(_busy())
    retry = Retry(timeout_s=600, busy_retries=2)
    assert 3.0 <= retry.delay_s(_busy(3.0)) <= 3.75
    assert 0 < retry.delay_s(_busy()) < MAX_DELAY_S
    with pytest.raises(ServerBusyError):
        retry.delay_s(_busy())


def test_no_wait_reaches_beyond_the_timeout() -> None:
    with pytest.raises(ServerBusyError):
        Retry(timeout_s=2.0, busy_retries=5).delay_s(_busy(2.5))
    remaining = Retry(timeout_s=2.0).remaining_s()
    assert remaining is not None and 1.9 < remaining <= 2.0
    assert Retry(timeout_s=None).remaining_s() is None


def test_connections_and_refusals_have_counts_of_their_own() -> None:
    retry = Retry(timeout_s=600, busy_retries=2)
    for _ in range(CONNECT_RETRIES):
        retry.delay_s(_refused())
    assert 3.0 <= retry.delay_s(_busy(3.0)) <= 3.75
    retry.delay_s(_busy())
    with pytest.raises(ServerBusyError):
        retry.delay_s(_busy())
    with pytest.raises(ServerUnavailableError):
        retry.delay_s(_refused())


@pytest.mark.parametrize("unreached", [True, False], ids=["nobody", "no models"])
@pytest.mark.parametrize("lost", [True, False], ids=["lost", "at the door"])
def test_where_a_server_goes_away_what_it_told_first_is_raised(lost: bool, unreached: bool) -> None:
    stopping, nobody = ServerUnavailableError("the server is stopping"), _refused()
    stopping.lost, stopping.safe_to_retry = lost, not lost
    nobody.unreached = unreached
    retry = Retry(timeout_s=600, repeatable=True)
    retry.delay_s(stopping)
    with pytest.raises(ServerUnavailableError) as raised:
        for _ in range(CONNECT_RETRIES + 1):
            retry.delay_s(nobody)
    assert raised.value is stopping
