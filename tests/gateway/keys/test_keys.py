"""Keys: what is kept of them, who gets in with one, and how much each may ask."""

import asyncio
import base64
import io
import json
import re
import sqlite3
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import UTC, datetime, timedelta
from subprocess import CompletedProcess

import openai
import pytest
from PIL import Image

from faceclip import ServedModel
from gateway import serve
from gateway.__main__ import main
from gateway.drawing import Drawing
from gateway.errors import ApiError
from gateway.keys.caller import SCOPES, Limits
from gateway.keys.permission import _check
from gateway.keys.store import KeyStore
from gateway.keys.usage import Usage, today
from gateway.settings import Settings, SettingsError
from tests.gateway.running import command, running

SMALL = {"num_inference_steps": 1, "height": 64, "width": 64}
ASKED = {
    "images": ("POST", "/v1/images/generations"),
    "jobs": ("GET", "/v1/jobs"),
    "faces": ("POST", "/v1/faces"),
    "verify": ("POST", "/v1/verify"),
    "status": ("GET", "/v1/status"),
}
"""A route of each scope."""
OPEN = ("/healthz", "/readyz", "/docs", "/openapi.json", "/")


@pytest.fixture
def store(tmp_path):
    made = KeyStore(tmp_path)
    yield made
    made.close()


def add(store, *scopes, expires=None, **limits):
    return store.add("somebody", frozenset(scopes or SCOPES), Limits(**limits), expires)


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def told(*arguments):
    """What `command` gives, without a process of its own."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = main(list(arguments))
        except SystemExit as end:
            code = end.code
    return CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def test_only_a_hash_is_kept(store, tmp_path):
    key = add(store)
    store.close()
    assert all(key.split("_", 2)[2].encode() not in path.read_bytes() for path in tmp_path.iterdir())
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())


def test_without_any_key_all_is_open_and_revoking_the_last_opens_nothing(store):
    assert store.is_open and store.caller(None).scopes == set(SCOPES)
    key = add(store)
    assert not store.is_open
    assert store.caller(f"Bearer {key}").name == "somebody"
    assert store.revoke(key.split("_")[1])
    assert not store.is_open


def wrong(key):
    id = key.split("_")[1]
    return {
        "none": None,
        "empty": "",
        "no scheme": key,
        "another scheme": f"Basic {key}",
        "no key": "Bearer ",
        "text": "Bearer abc",
        "an unknown id": f"Bearer {key.replace(id, '0' * 8)}",
        "another secret": f"Bearer fc_{id}_{'A' * 43}",
        "a hash": "Bearer fc__",
        "cut": f"Bearer {key[:-1]}",
        "longer": f"Bearer {key}A",
        "not ASCII": f"Bearer {key}é",
    }


@pytest.mark.parametrize("kind", wrong("fc_12345678_x"))
def test_a_wrong_key(store, kind):
    with pytest.raises(ApiError) as refused:
        store.caller(wrong(add(store))[kind])
    assert refused.value.status == 401


@pytest.mark.parametrize("state", ["expired", "revoked"])
def test_a_key_that_is_over(store, state):
    key = add(store, expires=datetime.now(UTC) - timedelta(seconds=1) if state == "expired" else None)
    if state == "revoked":
        store.revoke(key.split("_")[1])
    with pytest.raises(ApiError, match=state):
        store.caller(f"Bearer {key}")


def test_what_another_process_changes_holds_at_once(store, tmp_path):
    key = add(store)
    store.caller(f"Bearer {key}")
    assert command("keys", "revoke", key.split("_")[1], f"--data={tmp_path}").returncode == 0
    with pytest.raises(ApiError, match="revoked"):
        store.caller(f"Bearer {key}")


def test_the_command(tmp_path):
    data = f"--data={tmp_path}"
    made = command("keys", "add", "web", "--scope=images", "--expires=30d", "--pictures-per-day=5", "--variant=nano", data)
    key = made.stdout.strip()
    assert re.fullmatch(r"fc_[0-9a-f]{8}_[\w-]{43}", key)
    listed = json.loads(told("keys", "list", data).stdout)
    assert (listed["name"], listed["state"], listed["scopes"]) == ("web", "valid", ["images"])
    assert listed["limits"] == {"pictures_per_day": 5, "variants": ["nano"], "priority": "interactive"}
    assert key not in json.dumps(listed)
    assert told("keys", "revoke", listed["id"], data).returncode == 0
    assert json.loads(told("keys", "list", data).stdout)["state"] == "revoked"


@pytest.mark.parametrize(
    "arguments",
    [
        ("add", ""), ("add", "x" * 101), ("add", "a\nb"), ("add", "web", "--expires=yesterday"), ("add", "web", "--expires=2020-01-01"),
        ("add", "web", "--expires=0d"), ("add", "web", "--concurrent=0"), ("add", "web", "--scope=all"), ("revoke", "nobody"),
    ],
    ids=repr,
)  # fmt: skip
def test_a_wrong_command_says_so(tmp_path, arguments):
    done = told("keys", *arguments, f"--data={tmp_path}")
    assert done.returncode != 0 and done.stderr.strip()


@pytest.mark.parametrize("options", [{"host": "0.0.0.0"}, {"public_url": "https://pictures.example.org"}])
def test_without_keys_it_is_for_this_machine_alone(tmp_path, monkeypatch, options):
    monkeypatch.setattr(serve, "make_app", lambda _: pytest.fail("it began to serve"))
    with pytest.raises(SettingsError, match="keys add"):
        serve.serve(Settings(data=str(tmp_path), port=0, **options))


class Gate:
    def __init__(self, running):
        self.running = running
        self.http = running.http

    def key(self, *options):
        return told("keys", "add", "somebody", *options, f"--data={self.running.data}").stdout.strip()

    def draw(self, key, **fields):
        return self.http.post("/v1/images/generations", json={"prompt": "a castle", **SMALL, **fields}, headers=bearer(key))


@contextmanager
def locked(server, data):
    told("keys", "add", "first", f"--data={data}")
    with running(server.url, data) as started:
        yield Gate(started)


@pytest.fixture(scope="module")
def gate(server, tmp_path_factory):
    with locked(server, tmp_path_factory.mktemp("locked")) as found:
        yield found


@pytest.mark.parametrize("scope", SCOPES)
def test_a_key_is_for_its_scopes(gate, scope):
    key = gate.key(f"--scope={scope}")
    for other, (method, path) in ASKED.items():
        status = gate.http.request(method, path, headers=bearer(key)).status_code
        assert (status == 403) == (other != scope), (other, status)
        assert gate.http.request(method, path).status_code == 401


@pytest.mark.parametrize("path", ["/v1/models", "/v1/capabilities"])
def test_any_key_may_ask_what_there_is(gate, path):
    assert gate.http.get(path).status_code == 401
    assert gate.http.get(path, headers=bearer(gate.key("--scope=status"))).status_code == 200


@pytest.mark.parametrize("path", OPEN)
def test_what_tells_nothing_needs_no_key(gate, path):
    assert gate.http.get(path).status_code == 200


def test_metrics_are_for_status(gate):
    assert [gate.http.get("/metrics", headers=headers).status_code for headers in ({}, bearer(gate.key("--scope=images")))] == [
        401,
        403,
    ]
    text = gate.http.get("/metrics", headers=bearer(gate.key("--scope=status"))).text
    assert 'gateway_server_ready{server="' in text and "gateway_requests_total" in text


def test_openais_package_gets_in_with_a_key_and_is_told_without(gate):
    url = f"{gate.running.url}/v1"
    with openai.OpenAI(base_url=url, api_key=gate.key(), max_retries=0) as client:
        assert client.images.generate(prompt="a castle", extra_body=SMALL).data
    with openai.OpenAI(base_url=url, api_key="sk-nothing", max_retries=0) as client, pytest.raises(openai.AuthenticationError):
        client.images.generate(prompt="a castle", extra_body=SMALL)


def refused(answer, status, code):
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    assert status != 429 or int(answer.headers["retry-after"]) >= 1


def test_requests_a_minute(gate):
    key = gate.key("--requests-per-minute=3")
    answers = [gate.draw(key) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    refused(answers[-1], 429, "rate_limit_exceeded")
    assert gate.draw(gate.key("--requests-per-minute=3")).status_code == 200, "another key has its own"


def test_drawings_at_a_time(gate):
    key = gate.key("--concurrent=1")
    long = {"prompt": "a castle", "num_inference_steps": 200, "height": 256, "width": 256, "stream": True, "partial_images": 1}
    with gate.http.stream("POST", "/v1/images/generations", json=long, headers=bearer(key)) as first:
        assert first.status_code == 200
        refused(gate.draw(key), 429, "concurrency_limit_exceeded")
        assert gate.draw(gate.key("--concurrent=1")).status_code == 200


@pytest.mark.proof
def test_pictures_a_day_outlive_a_restart(server, tmp_path):
    with locked(server, tmp_path) as gate:
        keys = {stream: gate.key("--pictures-per-day=3") for stream in (False, True)}
        for stream, key in keys.items():
            assert gate.draw(key, n=2, stream=stream).status_code == 200
            assert gate.draw(key, height=7).status_code == 400, "what brings no picture counts for nothing"
            refused(gate.draw(key, n=2, stream=stream), 429, "daily_limit_exceeded")
    with locked(server, tmp_path) as gate:
        for stream, key in keys.items():
            assert gate.draw(key, n=1, stream=stream).status_code == 200
            refused(gate.draw(key, n=1, stream=stream), 429, "daily_limit_exceeded")


@pytest.mark.parametrize("fields", [{"size": "128x64"}, {"width": 128}, {"height": 192}, {"height": None}])
def test_the_largest_side(gate, fields):
    key = gate.key("--largest-side=64")
    refused(
        gate.draw(key, **({"height": None, "width": None} | fields if "size" in fields else fields)), 400, "size_not_allowed"
    )
    assert gate.draw(key).status_code == 200


def picture(side):
    file = io.BytesIO()
    Image.new("RGB", (side, side), "green").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


EDIT = {"strength": 1.0, "height": None, "width": None}


@pytest.mark.proof
@pytest.mark.parametrize(
    "fields, largest",
    [
        ({}, 256),
        ({"height": 64, "width": 64}, 256),
        ({"width": 64}, 256),
        ({"height": 320, "width": 64}, 320),
        ({"padding_mask_crop": 8, "mask": "face", "height": 64, "width": 64}, 256),
        ({"padding_mask_crop": 8, "mask": "face", "height": 64, "width": 320}, 320),
        ({"padding_mask_crop": 8, "mask": "face"}, 256),
    ],
)
def test_the_largest_side_of_a_picture_to_change(gate, fields, largest):
    """The answer has the picture's size, whatever is drawn: it counts, and what is drawn counts too."""
    request = {"image": picture(256), **EDIT, **fields}
    refused(gate.draw(gate.key(f"--largest-side={largest - 1}"), **request), 400, "size_not_allowed")
    answer = gate.draw(gate.key(f"--largest-side={largest}"), **request)
    if answer.status_code == 200:
        assert answer.json()["size"] == "256x256"
    else:
        assert "face" in answer.json()["error"]["message"], "a green picture shows no face"


@pytest.mark.parametrize("size", [(64, 256), (256, 64)])
@pytest.mark.parametrize("crop", [None, 0, 4096])
def test_no_answer_is_larger_than_its_key_may_have(size, crop):
    """It has the picture's size, though 64 pixels a side are asked for, or the model's 128 are drawn."""
    served = ServedModel("faceclip", "nano", {}, {"width": 128, "height": 128}, {}, [])
    file = io.BytesIO()
    Image.new("RGB", size).save(file, "PNG")
    parameters = {"width": 64, "height": 64} | ({} if crop is None else {"padding_mask_crop": crop})
    asked = Drawing(None, "a castle", [], file.getvalue(), None, parameters, "id", "tenant", "interactive", 60.0, False)
    _check(Limits(largest_side=256), asked, served)
    with pytest.raises(
        ApiError, match=r"image: this key may have pictures of up to 255 pixels a side, got .*; the answer"
    ) as told:
        _check(Limits(largest_side=255), asked, served)
    assert (told.value.status, told.value.param) == (400, "image")


def test_a_picture_of_no_size_is_refused_where_size_is_limited(gate):
    request = {"image": base64.b64encode(b"no picture at all").decode(), **EDIT}
    answer = gate.draw(gate.key("--largest-side=4096"), **request)
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "image"


def test_who_leaves_while_he_is_counted_counts_for_nothing(store):
    """Cancelled at any moment of it: in the queue for the counts, while they are written, and just after."""

    async def leave(usage, caller, turns):
        asked = asyncio.create_task(usage.admit(caller, drawing, None))
        for _ in range(turns):
            await asyncio.sleep(0)
        asked.cancel()
        try:
            day = await asked
        except asyncio.CancelledError:
            return
        await usage.give_back(caller, drawing, day)

    async def no_jobs(key_id, since):
        return 0

    async def all_leave():
        usage = Usage(store.database, no_jobs)
        for turns in range(40):
            await leave(usage, caller, turns)
        return usage.of_answers(caller.key_id, today())

    caller = store.caller(f"Bearer {add(store, pictures_per_day=1)}")
    drawing = Drawing(None, "a castle", [], None, None, {}, "id", "tenant", "interactive", 60.0, False)
    assert asyncio.run(all_leave()) == 0


def test_models(gate):
    key = gate.key("--variant=flux")
    for model in (None, "faceclip", "tiny-sdxl"):
        refused(gate.draw(key, model=model), 403, "model_not_allowed")
    for name in ("faceclip", "tiny-sdxl"):
        assert gate.draw(gate.key(f"--variant={name}"), model="tiny-sdxl").status_code == 200


@pytest.mark.parametrize(
    "options, field, seen", [((), None, "interactive"), ((), "batch", "batch"), (("--priority=batch",), "interactive", "batch")]
)
def test_the_highest_priority(gate, options, field, seen):
    fields = {} if field is None else {"priority": field}
    details = gate.draw(gate.key(*options), **fields).json()["details"]
    assert details["parameters"]["priority"] == seen


def test_limits_hold_for_jobs_too(gate):
    def ask(key, **fields):
        return gate.http.post("/v1/jobs", json={"prompt": "a castle", **SMALL, **fields}, headers=bearer(key))

    refused(ask(gate.key("--variant=flux")), 403, "model_not_allowed")
    refused(ask(gate.key("--largest-side=64"), width=128), 400, "size_not_allowed")
    key = gate.key("--pictures-per-day=1")
    assert ask(key).status_code == 202
    refused(ask(key), 429, "daily_limit_exceeded")


def test_the_log_tells_whose_and_no_secret(gate):
    key = gate.key()
    prompt = "a prompt that nobody else reads"
    answer = gate.http.post(
        "/v1/images/generations?key=secret", json={"prompt": prompt, "user": "ann@example.org", **SMALL}, headers=bearer(key)
    )
    line = gate.running.logged(answer.headers["x-request-id"])
    assert (line["key"], line["status"], line["route"]) == (key.split("_")[1], 200, "/v1/images/generations")
    said = "".join(gate.running.lines)
    assert not [secret for secret in (key, key.split("_", 2)[2], prompt, "ann@example.org", "key=secret") if secret in said]


def test_a_database_that_is_none(tmp_path):
    (tmp_path / "keys.sqlite").write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(sqlite3.DatabaseError):
        KeyStore(tmp_path)
    done = command("run", f"--data={tmp_path}", "--port=0")
    assert done.returncode == 1 and "Traceback" not in done.stderr
