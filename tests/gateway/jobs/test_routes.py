"""`/v1/jobs` by HTTP, before the real server."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from ..running import running, until

BODY = {"prompt": "a portrait", "num_inference_steps": 4, "width": 64, "height": 64}
LONG = {**BODY, "num_inference_steps": 150, "scheduler": "EulerDiscreteScheduler"}


def post(gate, body=BODY, **headers):
    return gate.http.post("/v1/jobs", json=body, headers=headers)


def ended(gate, job_id):
    def look():
        job = gate.http.get(f"/v1/jobs/{job_id}").json()
        return job if job["ended"] else None

    return until(look)


def events(gate, job_id, last=None, most=10_000, found=None):
    """Id, name and data of each, and the status. `found`: a list that grows with them."""
    found = [] if found is None else found
    headers = {"Last-Event-ID": last} if last else {}
    with gate.http.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as answer:
        if answer.status_code != 200:
            return answer.status_code, found
        event = {}
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if line:
                event[name] = value
            elif "event" in event:
                found.append((event["id"], event["event"], json.loads(event["data"])))
                event = {}
                if len(found) == most:
                    break
        return answer.status_code, found


def test_a_job_is_accepted_told_and_its_picture_fetched(gate):
    answer = post(gate, {**BODY, "seed": 7})
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    done = gate.http.get(job["poll_url"]).json() if job["ended"] else ended(gate, job["id"])
    assert (done["status"], done["kind"], done["object"]) == ("completed", "image_generation", "image.job")
    (picture,) = done["result"]["data"]
    assert picture["seed"] == 7
    assert done["result"]["details"]["id"] == job["id"]
    file = gate.http.get(picture["url"])
    assert file.headers["content-type"] == "image/png"
    again = gate.http.post("/v1/images/generations", json={**BODY, "seed": 7, "response_format": "url"}).json()
    assert gate.http.get(again["data"][0]["url"]).content == file.content
    assert gate.http.get(picture["url"].replace("signature=", "signature=0")).json()["error"]["code"] == "signature_invalid"


def test_a_seed_that_was_not_chosen_is_told(gate):
    done = ended(gate, post(gate).json()["id"])
    (picture,) = done["result"]["data"]
    assert done["result"]["details"]["seeds"] == [picture["seed"]]


def test_events_are_told_once_over_broken_connections(gate):
    job = post(gate, {**LONG, "partial_images": 1}).json()
    _, heard = events(gate, job["id"], most=5)
    while heard[-1][1] not in ("completed", "failed"):
        _, more = events(gate, job["id"], heard[-1][0], most=40)
        heard += more
    steps = [data["step"] for _, name, data in heard if name == "progress"]
    assert steps == list(range(1, 151))
    assert any(data["b64_json"] for _, name, data in heard if name == "preview")
    last, name, data = heard[-1]
    assert (name, data["status"]) == ("completed", "completed")
    assert events(gate, job["id"], last) == (204, [])
    assert [name for _, name, _ in events(gate, job["id"])[1]] == ["completed"]


def test_a_cancelled_job_is_no_longer_drawn(gate):
    job = post(gate, LONG).json()
    events(gate, job["id"], most=2)
    answer = gate.http.delete(f"/v1/jobs/{job['id']}")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    assert gate.http.delete(f"/v1/jobs/{job['id']}").status_code == 200
    assert until(lambda: gate.http.get("/v1/status").json()) is not None
    assert [name for _, name, _ in events(gate, job["id"])[1]] == ["cancelled"]


def test_an_ended_job_cannot_be_cancelled(gate):
    job = post(gate).json()
    ended(gate, job["id"])
    answer = gate.http.delete(f"/v1/jobs/{job['id']}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "job_ended")


def test_what_the_server_refuses_is_told_in_its_words(gate):
    done = ended(gate, post(gate, {**BODY, "height": 63}).json()["id"])
    assert done["status"] == "failed"
    assert done["error"]["param"] == "height"
    assert done["attempts"] == 1


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({**BODY, "prompt": ""}, "prompt"),
        ({**BODY, "size": "big"}, "size"),
        ({**BODY, "webhook_url": "http://127.0.0.1/"}, "webhook_url"),
        ({**BODY, "webhook_url": "https://example.org/"}, "webhook_url"),
        ({**BODY, "model": "other"}, "model"),
    ],
)
def test_bad_requests_are_no_jobs(gate, body, param):
    before = gate.http.get("/v1/jobs").json()["data"]
    answer = post(gate, body)
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["param"] == param
    assert gate.http.get("/v1/jobs").json()["data"][:1] == before[:1]


def test_the_same_key_is_the_same_job_whoever_comes_first(gate):
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(lambda _: post(gate, **{"Idempotency-Key": "once"}), range(8)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 7
    other = post(gate, {**BODY, "prompt": "another"}, **{"Idempotency-Key": "once"})
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")


@pytest.mark.parametrize("key", ["", "k" * 256])
def test_a_bad_key_is_refused(gate, key):
    assert post(gate, **{"Idempotency-Key": key}).json()["error"]["param"] == "Idempotency-Key"


def test_the_list_goes_page_by_page(gate):
    made = [post(gate).json()["id"] for _ in range(3)]
    first = gate.http.get("/v1/jobs", params={"limit": 2}).json()
    assert [job["id"] for job in first["data"]] == made[:0:-1]
    assert first["has_more"]
    second = gate.http.get("/v1/jobs", params={"limit": 1, "after": first["data"][-1]["id"]}).json()
    assert [job["id"] for job in second["data"]] == made[:1]


@pytest.mark.parametrize("way", ["", "/events", "/preview"])
def test_an_unknown_job_is_404(gate, way):
    answer = gate.http.get(f"/v1/jobs/job_none{way}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "job_not_found")


def test_results_are_swept_after_their_time(server, tmp_path):
    with running(server.url, tmp_path, "--keep-results=1") as gate:
        done = ended(gate, post(gate).json()["id"])
        url = done["result"]["data"][0]["url"]
        until(lambda: gate.http.get(url).status_code == 410)
        until(lambda: gate.http.get(f"/v1/jobs/{done['id']}").status_code == 410)
        until(lambda: not list((tmp_path / "results").iterdir()))
        assert not list((tmp_path / "waiting").iterdir())


def test_jobs_are_accepted_while_the_server_is_away_and_a_full_store_says_so(tmp_path):
    with running("127.0.0.1:1", tmp_path, "--jobs-most=2") as gate:
        assert [post(gate).json()["queue_position"] is not None for _ in range(2)]
        answer = post(gate)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "job_store_full")
        assert int(answer.headers["retry-after"]) > 0
        waiting = gate.http.get("/v1/jobs").json()["data"]
        assert {job["status"] for job in waiting} <= {"queued", "generating"}


def test_a_gateway_on_a_folder_in_use_says_so_and_ends(gate):
    with pytest.raises(AssertionError, match="another gateway works in it"), running("127.0.0.1:1", gate.data):
        pass


@pytest.mark.proof
def test_whoever_follows_a_job_does_not_hold_up_a_stop(tmp_path):
    with running("127.0.0.1:1", tmp_path) as gate:
        job = post(gate).json()
        with ThreadPoolExecutor(1) as follower:
            told = []
            heard = follower.submit(events, gate, job["id"], found=told)
            until(lambda: told)  # he is there; before that a stop ends what has not begun
            gate.end(timeout_s=30)
            status, _ = heard.result()
    assert status == 200
    assert {name for _, name, _ in told} == {"queued"}
    with running("127.0.0.1:1", tmp_path) as gate:
        assert gate.http.get(f"/v1/jobs/{job['id']}").json()["status"] in ("queued", "generating")
