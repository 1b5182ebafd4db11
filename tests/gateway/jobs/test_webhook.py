"""Webhooks against a real server: signed, again after failures, to allowed hosts only, never to addresses of an inner network."""

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import openai
import pytest

from gateway.jobs.failures import WebhookRefusedError
from gateway.jobs.kept.store import Store
from gateway.jobs.records import NewJob
from gateway.jobs.service import Jobs, JobSettings
from gateway.jobs.webhooks.destinations import Destinations
from gateway.jobs.webhooks.webhook import AT_ONCE, BackOff, Sender, secret_text

from .drawn import Server, drawing, ended, until, working

SECRET = bytes(range(32))
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)
EVENT = {"object": "event", "id": "evt_1", "type": "image.job.completed", "created_at": 1, "data": {"id": "job_1"}}


class Hook(ThreadingHTTPServer):
    """Remembers what it is told, and answers with the next of `answers`."""

    def __init__(self):
        self.told, self.answers, self.location = [], [], ""
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                hook.told.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(hook.answers.pop(0) if hook.answers else 204)
                if hook.location:
                    self.send_header("location", hook.location)
                self.end_headers()

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()


@pytest.fixture
def hook():
    found = Hook()
    yield found
    found.shutdown()
    found.server_close()


def allowing(hook):
    return {"webhook_hosts": (hook.origin,), "webhook_networks": ("127.0.0.0/8",)}


async def test_the_end_of_a_job_is_told_once_and_signed(tmp_path, hook):
    async with working(tmp_path, Server(), **allowing(hook)) as jobs:
        job, _ = await jobs.accept(drawing(), "", "image_generation", f"{hook.origin}/told?a=b")
        await until(lambda: asyncio.sleep(0, hook.told))
        await until(lambda: asyncio.sleep(0, jobs._store.next_due() is None))
    ((path, headers, body),) = hook.told
    assert path == "/told?a=b"
    assert json.loads(body) == {"id": job.id, "status": "completed"}
    secret = bytes.fromhex((tmp_path / "webhook.secret").read_text())
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()}"


async def test_openais_package_verifies_what_is_sent(hook):
    sender = Sender(Destinations((hook.origin,), LOOPBACK), SECRET)
    assert await sender.send(f"{hook.origin}/", EVENT) == 204
    await sender.close()
    ((_, headers, body),) = hook.told
    client = openai.OpenAI(api_key="none", webhook_secret=secret_text(SECRET))
    client.webhooks.verify_signature(body, headers)
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.verify_signature(body + b" ", headers)


async def test_a_failure_is_tried_again_with_the_same_id_until_it_is_taken(tmp_path, hook):
    hook.answers = [500, 302, 404, 200]
    async with working(tmp_path, Server(), back_off=BackOff(0.02, 0.05, 60), **allowing(hook)) as jobs:
        await jobs.accept(drawing(), "", "image_generation", f"{hook.origin}/")
        await until(lambda: asyncio.sleep(0, jobs._store.next_due() is None and len(hook.told) == 4))
    assert len({headers["webhook-id"] for _, headers, _ in hook.told}) == 1


@pytest.mark.parametrize(("answers", "back_off"), [([410], BackOff(0.02)), ([500] * 50, BackOff(0.1, 0.1, 0.25))])
async def test_it_is_given_up_when_it_is_gone_or_after_long(tmp_path, hook, answers, back_off):
    hook.answers = answers
    async with working(tmp_path, Server(), back_off=back_off, **allowing(hook)) as jobs:
        await jobs.accept(drawing(), "", "image_generation", f"{hook.origin}/")
        await until(lambda: asyncio.sleep(0, hook.told and jobs._store.next_due() is None))
    assert len(hook.told) <= 4


async def test_what_was_not_sent_is_sent_after_a_restart(tmp_path, hook):
    hook.answers = [500]
    async with working(tmp_path, Server(), back_off=BackOff(0.5), **allowing(hook)) as jobs:
        job, _ = await jobs.accept(drawing(), "", "image_generation", f"{hook.origin}/")
        await until(lambda: asyncio.sleep(0, hook.told))
        await ended(jobs, job.id)
    async with working(tmp_path, Server(), **allowing(hook)):
        await until(lambda: asyncio.sleep(0, len(hook.told) == 2))


async def test_webhooks_of_forgotten_jobs_are_given_up_and_hold_up_no_other(tmp_path, hook):
    """The gateway was off for longer than jobs are known, and more are to be told than are sent at a time."""
    store = Store(tmp_path / "jobs.sqlite")
    for i in range(AT_ONCE + 1):
        store.accept(NewJob(f"old{i}", "", "", "image_generation", "batch", None, 1.0, 2.0, "d", f"{hook.origin}/old"))
        store.cancel(f"old{i}", 1.0, 2.0)
    store.sweep(10.0, forget_s=1.0)
    assert len(store.due(10.0, 1000)) == AT_ONCE + 1
    store.close()
    async with working(tmp_path, Server(), **allowing(hook)) as jobs:
        await jobs.accept(drawing(), "", "image_generation", f"{hook.origin}/new")
        await until(lambda: asyncio.sleep(0, hook.told and jobs._store.next_due() is None), timeout_s=60)
    assert {path for path, *_ in hook.told} == {"/new"}


async def test_an_event_that_cannot_be_told_is_tried_again_like_others_and_holds_up_no_other(tmp_path, hook):
    broken = set()

    def event_of(job):
        if job.id in broken:
            raise ValueError("its record is broken")
        return {"id": job.id}

    settings = JobSettings(**allowing(hook), back_off=BackOff(0.5, 0.5, 3600), most=1000)
    jobs = Jobs(tmp_path, settings, Server().draw, event_of)
    ids = [f"broken{i}" for i in range(AT_ONCE + 1)]
    for each in ids:
        jobs._store.accept(NewJob(each, "", "", "image_generation", "batch", None, 1.0, 2.0, "d", f"{hook.origin}/"))
        jobs._store.cancel(each, time.time() - 60, time.time() + 3600)
    broken.update(ids)
    await jobs.start()
    try:
        job, _ = await jobs.accept(drawing(), "", "image_generation", f"{hook.origin}/")
        await until(lambda: asyncio.sleep(0, hook.told), timeout_s=60)
        assert [json.loads(body)["id"] for *_, body in hook.told] == [job.id]
        broken.clear()
        await until(lambda: asyncio.sleep(0, jobs._store.next_due() is None), timeout_s=60)
    finally:
        await jobs.close()
    assert {json.loads(body)["id"] for *_, body in hook.told} == {job.id, *ids}


async def test_a_slow_webhook_holds_up_no_other_and_no_job(tmp_path, hook):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        deaf = f"http://127.0.0.1:{silent.getsockname()[1]}"
        settings = {"webhook_hosts": (hook.origin, deaf), "webhook_networks": ("127.0.0.0/8",)}
        async with working(tmp_path, Server(), **settings) as jobs:
            await jobs.accept(drawing(), "", "image_generation", f"{deaf}/")
            job, _ = await jobs.accept(drawing(), "", "image_generation", f"{hook.origin}/")
            await ended(jobs, job.id)
            await until(lambda: asyncio.sleep(0, hook.told), timeout_s=5)


async def test_a_redirect_is_not_followed(hook):
    inner = Hook()
    hook.answers, hook.location = [307], f"{inner.origin}/secret"
    sender = Sender(Destinations((hook.origin,), LOOPBACK), SECRET)
    assert await sender.send(f"{hook.origin}/", EVENT) == 307
    await sender.close()
    inner.shutdown()
    inner.server_close()
    assert inner.told == []


ANY = Destinations(("*.example.org", "example.org", "http://*", "https://[::1]", *(f"{scheme}://{host}" for scheme in ("http", "https")
    for host in ("127.0.0.1", "10.0.0.1", "192.168.1.1", "169.254.169.254", "[::1]", "[::ffff:127.0.0.1]", "[fd00::1]", "[64:ff9b::7f00:1]",
                 "[2002:7f00:1::]", "0.0.0.0", "100.64.0.1", "224.0.0.1"))))  # fmt: skip


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "10.0.0.1", "192.168.1.1", "169.254.169.254", "[::1]", "[::ffff:127.0.0.1]", "[fd00::1]", "[64:ff9b::7f00:1]",
     "[2002:7f00:1::]", "0.0.0.0", "100.64.0.1", "224.0.0.1"],
)  # fmt: skip
def test_inner_addresses_are_refused_even_where_the_host_is_allowed(host):
    with pytest.raises(WebhookRefusedError, match="private, loopback or reserved"):
        ANY.check(f"https://{host}/")


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "https://example.org.evil.net/",
        "https://evilexample.org/",
        "https://other.net/",
        "https://user:password@example.org/",
        "https://example.org@other.net/",
        "ftp://example.org/",
        "https:///path",
        "https://example.org:port/",
        "https://example.org/\n",
        "https://exämple.org/",
        "https://example.org/" + "a" * 3000,
        "https://2130706433/",
        "https://0x7f.1/",
        "",
    ],
)
def test_other_addresses_are_refused(url):
    with pytest.raises(WebhookRefusedError, match="webhook_url"):
        ANY.check(url)


@pytest.mark.parametrize("url", ["https://example.org/a?b", "https://a.example.org:8443/", "https://A.EXAMPLE.ORG/"])
def test_allowed_hosts_are_allowed(url):
    ANY.check(url)


def test_nothing_is_allowed_where_no_host_is_named():
    with pytest.raises(WebhookRefusedError, match="--webhook-host"):
        Destinations().check("https://example.org/")


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.1.1", "::1", "::ffff:10.0.0.1"])
async def test_a_name_that_leads_inside_is_refused_when_it_is_looked_up(monkeypatch, hook, address):
    """One of its addresses is enough; and it may have been another one a moment ago."""

    async def looked_up(self, host, port, **_):
        return [(0, 0, 0, "", ("93.184.216.34", port)), (0, 0, 0, "", (address, port))]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", looked_up)
    sender = Sender(Destinations(("example.org",)), SECRET)
    with pytest.raises(WebhookRefusedError, match=r"example\.org"):
        await sender.send("https://example.org/", EVENT)
    await sender.close()


async def test_the_connection_goes_to_the_address_that_was_judged(monkeypatch, hook):
    async def looked_up(self, host, port, **_):
        return [(0, 0, 0, "", ("127.0.0.1", port))]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", looked_up)
    origin = f"http://hook.example.org:{hook.server_port}"
    sender = Sender(Destinations((origin,), LOOPBACK), SECRET)
    assert await sender.send(f"{origin}/", EVENT) == 204
    await sender.close()
    assert hook.told[0][1]["host"] == f"hook.example.org:{hook.server_port}"


async def test_a_job_refuses_a_webhook_before_it_is_taken(tmp_path):
    async with working(tmp_path, Server(), at_once=0) as jobs:
        with pytest.raises(WebhookRefusedError):
            await jobs.check_webhook("http://127.0.0.1:80/")


def test_pauses_grow_to_the_longest():
    pauses = [BackOff(1, 100).after(attempts) for attempts in range(30)]
    assert 0.8 <= pauses[0] <= 1.2
    assert all(80 <= pause <= 120 for pause in pauses[5:])
