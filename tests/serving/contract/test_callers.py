"""Who is taken for whom."""

import pytest

from faceclip_serving.contract.callers import (
    OPERATOR_KEY,
    OPERATOR_KEY_VARIABLE,
    SECRET,
    SECRET_VARIABLE,
    Caller,
    caller,
    check_own,
    own_secret,
)
from faceclip_serving.contract.errors import InvalidRequest

ENVIRONMENT = {SECRET_VARIABLE: "s" * 32, OPERATOR_KEY_VARIABLE: "k" * 32}


@pytest.mark.parametrize(
    ("parameters", "who"),
    [
        ({SECRET: "s" * 32}, Caller.OWN),
        ({OPERATOR_KEY: "k" * 32}, Caller.OPERATOR),
        ({SECRET: "k" * 32}, Caller.PUBLIC),
        ({OPERATOR_KEY: "s" * 32}, Caller.PUBLIC),
        ({SECRET: "s" * 31}, Caller.PUBLIC),
        ({SECRET: ""}, Caller.PUBLIC),
        ({SECRET: True}, Caller.PUBLIC),
        ({SECRET: None, OPERATOR_KEY: 0}, Caller.PUBLIC),
        ({SECRET: "ü"}, Caller.PUBLIC),
        ({SECRET: "\ud800"}, Caller.PUBLIC),  # JSON may hold what UTF-8 cannot
        ({}, Caller.PUBLIC),
    ],
)
def test_a_caller_is_who_shows_the_right_text(parameters, who):
    assert caller(parameters, ENVIRONMENT) is who


@pytest.mark.parametrize("environment", [{}, {SECRET_VARIABLE: "", OPERATOR_KEY_VARIABLE: ""}])
def test_nothing_is_no_key(environment):
    for told in ("", None, "None"):
        assert caller({SECRET: told, OPERATOR_KEY: told}, environment) is Caller.PUBLIC


def test_an_inner_model_refuses_everybody_else_and_says_whom_to_call():
    check_own("sampler", Caller.OWN)
    for who in (Caller.PUBLIC, Caller.OPERATOR):
        with pytest.raises(InvalidRequest, match=r"sampler: only models of this server .* 'faceclip'"):
            check_own("sampler", who)


def test_models_do_not_start_without_a_secret_that_nobody_guesses():
    assert own_secret(ENVIRONMENT) == "s" * 32
    for secret in ({}, {SECRET_VARIABLE: "short"}):
        with pytest.raises(RuntimeError, match=r"FACECLIP_SECRET: expected at least 16 .*python -m server run"):
            own_secret(secret)
