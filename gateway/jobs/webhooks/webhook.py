"""Tells webhooks that jobs have ended: signed, at least once, again after a failure for a day.

The form and the signature are those of Standard Webhooks, which OpenAI's own follow, so `openai`'s `client.webhooks.unwrap` reads and
verifies them: `webhook-id` (the same for each attempt), `webhook-timestamp`, and `webhook-signature` = "v1," and the base64 of
HMAC-SHA256 over "id.timestamp.body".
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from ..failures import JobsError, UnknownJobError, WebhookRefusedError
from ..records import Delivery, Job
from .destinations import Destinations, default_port

SECRET_PREFIX = "whsec_"
TIMEOUT_S = 10.0
AT_ONCE = 64
FAULT_S = 5.0
"""Rest after an error of our own, such as a store that cannot be written."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BackOff:
    """Seconds between attempts: `first_s`, three times as long each time, at most `longest_s`, until `total_s` after the end."""

    first_s: float = 5.0
    longest_s: float = 3600.0
    total_s: float = 86400.0

    def after(self, attempts: int) -> float:
        """Before the next. `attempts`: those that failed before the one that has just failed. Spread, so that few come together."""
        return min(self.first_s * 3.0 ** min(attempts, 20), self.longest_s) * random.uniform(0.8, 1.2)


def secret_text(secret: bytes) -> str:
    """As whoever verifies takes it."""
    return SECRET_PREFIX + base64.b64encode(secret).decode()


def signed_headers(secret: bytes, event_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """What goes with a body."""
    signature = hmac.new(secret, f"{event_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "content-type": "application/json",
        "user-agent": "faceclip-gateway",
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(signature).decode()}",
    }


class Sender:
    """One attempt. Goes past proxies: what is connected to is what was judged."""

    def __init__(self, destinations: Destinations, secret: bytes) -> None:
        self._destinations = destinations
        self._secret = secret
        self._client = httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=TIMEOUT_S)

    async def send(self, url: str, event: Mapping[str, Any]) -> int:
        """The status that came back. Raises `WebhookRefusedError`, `httpx.HTTPError`, `OSError`."""
        parts = self._destinations.check(url)
        host, port = str(parts.hostname), parts.port or default_port(parts.scheme)
        address = await self._destinations.resolve(host, port)
        target = httpx.URL(url).copy_with(host=address)
        body = json.dumps(event, separators=(",", ":")).encode()
        headers = signed_headers(self._secret, event["id"], int(time.time()), body) | {"host": parts.netloc}
        request = self._client.build_request("POST", target, content=body, headers=headers, extensions={"sni_hostname": host})
        async with asyncio.timeout(TIMEOUT_S):
            response = await self._client.send(request, stream=True)  # its body is not read: it may be endless
        await response.aclose()
        return response.status_code

    async def close(self) -> None:
        await self._client.aclose()


@dataclass(frozen=True)
class _Failure:
    """Of an attempt. `final`: there is no other."""

    why: str
    final: bool = False


class Deliveries:
    """The store's deliveries, sent as they become due. `on_disk(name, *arguments)` calls the store."""

    def __init__(
        self,
        on_disk: Callable[..., Awaitable[Any]],
        sender: Sender,
        event_of: Callable[[Job], Mapping[str, Any]],
        back_off: BackOff,
    ) -> None:
        self._on_disk = on_disk
        self._sender = sender
        self._event_of = event_of
        self._back_off = back_off
        self._wake = asyncio.Event()
        self._sending: dict[str, asyncio.Task[None]] = {}

    def wake(self) -> None:
        """A delivery has come."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled. What was not sent is sent after the next start."""
        try:
            while True:
                self._wake.clear()
                wait_s: float | None = 5.0
                with contextlib.suppress(JobsError):  # a store that cannot be read: again in a moment
                    now = time.time()
                    for delivery in await self._on_disk("due", now, AT_ONCE):
                        if delivery.job not in self._sending:
                            self._begin(delivery)
                    when = await self._on_disk("next_due", now)
                    wait_s = None if when is None else max(when - time.time(), 0.0)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._wake.wait()
        finally:
            for task in list(self._sending.values()):
                task.cancel()

    def _begin(self, delivery: Delivery) -> None:
        """Each on its own: whoever is slow holds up nobody, while less than `AT_ONCE` are."""
        task = self._sending[delivery.job] = asyncio.create_task(self._deliver(delivery))

        def over(done: asyncio.Task[None]) -> None:
            del self._sending[delivery.job]
            if done.cancelled():
                return
            if (error := done.exception()) is not None:
                log.error("job %s: its webhook waits: %s", delivery.job, error, exc_info=error)
            asyncio.get_running_loop().call_later(0 if error is None else FAULT_S, self._wake.set)

        task.add_done_callback(over)

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            job = await self._on_disk("get", delivery.job)
        except UnknownJobError:  # forgotten: the gateway was off for longer than jobs are known
            log.warning("job %s: its webhook is given up: the job is forgotten", delivery.job)
            await self._on_disk("delivered", delivery.job)
            return
        failure = await self._attempt(delivery.url, job)
        if failure is None:
            await self._on_disk("delivered", delivery.job)
            return
        due = time.time() + self._back_off.after(delivery.attempts)
        if failure.final or due > job.ended + self._back_off.total_s:
            log.warning("job %s: its webhook is given up: %s", delivery.job, failure.why)
            await self._on_disk("delivered", delivery.job)
        else:
            log.info("job %s: attempt %d of its webhook failed: %s", delivery.job, delivery.attempts + 1, failure.why)
            await self._on_disk("postpone", delivery.job, due)

    async def _attempt(self, url: str, job: Job) -> _Failure | None:
        """None: it is told. A fault of our own is a failure too: left due, it would go before all that are due later."""
        try:
            status = await self._sender.send(url, self._event_of(job))
        except WebhookRefusedError as error:
            return _Failure(str(error), final=True)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError) as error:
            return _Failure(f"{type(error).__name__}: {error}")
        except Exception as error:
            log.exception("job %s: its webhook could not be sent", job.id)
            return _Failure(f"{type(error).__name__}: {error}")
        return (
            None if 200 <= status < 300 else _Failure(f"status {status}", final=status == 410)
        )  # as Standard Webhooks have it
