"""How an end is called, in metrics and between the models."""

import pytest

from faceclip_serving.contract.errors import (
    BUSY,
    OUTCOMES,
    Busy,
    Cancelled,
    DeadlineExceeded,
    InvalidRequest,
    NotANumber,
    Refused,
    Stopping,
    outcome,
)


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (None, "ok"),
        (InvalidRequest("x"), "invalid"),
        (Refused("consent.missing: x"), "refused"),
        (Cancelled("x"), "cancelled"),
        (SystemExit(), "error"),
        (DeadlineExceeded("x"), "deadline"),
        (Busy("x"), "rejected"),
        (NotANumber("x"), "not_a_number"),
        (Stopping("x"), "stopping"),
        (RuntimeError("x"), "error"),
        (MemoryError("x"), "error"),
    ],
)
def test_an_end_is_called_by_its_error(error, name):
    assert outcome(error) == name


@pytest.mark.parametrize("name", OUTCOMES)
def test_what_an_outcome_raises_is_called_so_again(name):
    kind = OUTCOMES[name]
    assert outcome(kind and kind("x")) == name


def test_a_refusal_knows_its_code_and_what_the_audit_log_is_told():
    refused = Refused("consent.expired: it ended", {"consent": {"id": "c1"}})
    assert (refused.code, refused.audit) == ("consent.expired", {"consent": {"id": "c1"}})
    assert Refused("policy.minor: no").audit == {}


def test_whoever_is_turned_away_is_counted_by_one_of_these_reasons():
    assert BUSY == ("full", "draining", "displaced")
    assert [Busy("x").reason, Busy("x", "draining").reason] == ["full", "draining"]
