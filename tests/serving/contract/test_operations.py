"""What models ask the sampler for: it arrives as it was sent, and anything else is refused in words."""

import json

import pytest

from faceclip_serving.contract.errors import InvalidRequest
from faceclip_serving.contract.operations import (
    OPERATIONS,
    Admit,
    Cancel,
    Describe,
    Drain,
    End,
    Follow,
    Leave,
    Lost,
    Prepare,
    Prepared,
    Renew,
    Start,
    Status,
    decode,
    encode,
)
from faceclip_serving.contract.tensors import bytes_tensor, json_tensor

SENT = [
    Admit("r1", "shop", 3.5), Admit(deadline=3), Admit(), Renew(["a", "b"]), Renew([]), Prepare("a"), Prepared("a"), Lost(["a"]),
    Start(True), Follow("a"),
    Describe("a", "batch", False), Describe("a"), Leave(["a"]), End("a", "deadline"), Cancel("r1"), Drain(False), Status(),
]  # fmt: skip


def test_every_operation_is_tried_here():
    assert {type(operation) for operation in SENT} == set(OPERATIONS.values())


@pytest.mark.parametrize("operation", SENT, ids=str)
def test_an_operation_arrives_as_it_was_sent(operation):
    assert decode(encode(operation)) == operation


@pytest.mark.parametrize(
    ("told", "meant"),
    [
        ({"op": "admit"}, Admit(id="", tenant="", deadline=None)),
        ({"op": "start"}, Start(previews=False)),
        ({"op": "end", "place": "a"}, End("a", outcome="cancelled")),
        ({"op": "drain"}, Drain(on=True)),
        ({"op": "admit", "deadline": 3}, Admit(deadline=3)),
    ],
)
def test_what_is_left_out_is_the_usual(told, meant):
    assert decode(json_tensor(told)) == meant


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (
            [1],
            "control: expected 'op', one of admit, renew, prepare, prepared, lost, start, follow, describe, leave, end, cancel, drain,"
            " status, got None",
        ),
        ({"op": "stop"}, "control: expected 'op', one of admit, renew, .*, got 'stop'"),
        ({"op": ["admit"]}, r"control: expected 'op', one of admit, renew, .*, got \['admit'\]"),
        ({"op": "follow"}, r"control: 'follow' takes \['place'\], needs \['place'\], got \[\]"),
        ({"op": "status", "place": "a"}, r"control: 'status' takes \[\], needs \[\], got \['place'\]"),
        ({"op": "prepare", "place": 1}, "control: 'prepare', 'place': expected <class 'str'>, got 1"),
        ({"op": "prepare", "place": None}, "control: 'prepare', 'place': .*, got None"),
        ({"op": "renew", "places": "ab"}, r"control: 'renew', 'places': expected list\[str\], got 'ab'"),
        ({"op": "renew", "places": ["a", 1]}, r"control: 'renew', 'places': expected list\[str\], got \['a', 1\]"),
        ({"op": "drain", "on": 1}, "control: 'drain', 'on': expected <class 'bool'>, got 1"),
        ({"op": "drain", "on": None}, "control: 'drain', 'on': expected <class 'bool'>, got None"),
        ({"op": "admit", "deadline": True}, r"control: 'admit', 'deadline': expected float \| None, got True"),
        ({"op": "admit", "deadline": "soon"}, r"control: 'admit', 'deadline': expected float \| None, got 'soon'"),
    ],
)
def test_anything_else_is_refused_in_words(told, message):
    with pytest.raises(InvalidRequest, match=f"^{message}$"):
        decode(json_tensor(told))


@pytest.mark.parametrize(
    ("control", "why"),
    [([b"{"], "Expecting property name"), ([b"[" * 100_000], "recursion"), ([], "size 1"), ([b"{}"] * 2, "size 1")],
)
def test_what_is_no_json_is_refused_with_the_reason(control, why):
    with pytest.raises(InvalidRequest, match=rf"^control: expected a JSON object \(.*{why}"):
        decode(bytes_tensor(control))


def test_the_tensor_is_json_that_other_programs_can_write():
    assert json.loads(encode(End("a", "ok")).item()) == {"op": "end", "place": "a", "outcome": "ok"}
