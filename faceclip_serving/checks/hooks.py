"""A check of an operator's own, a Python function or a service over HTTP. What it does not answer in time, in order, is refused."""

from __future__ import annotations

import base64
import json
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..contract.functions import loaded
from .policy import ALLOW, REFUSE, REVIEW, HookSpec, PolicyError

MAX_ANSWER_BYTES = 2**16
MAX_SCORE = 1e6
"""Of either sign. What is larger, or no number, cannot be kept in records."""
_THREADS = 8
"""Of one hook. Calls that hang keep theirs; when all hang, no further call is made, and everything is refused."""

Question = Mapping[str, Any]
"""`stage`; of prompts: `prompt`, `negative_prompt`, `faces`; else `pictures`: PNG files, over HTTP in base64."""


class HookFailed(Exception):
    """No answer, or none that can be used; the message says why, for the operator."""


class Hook:
    """May be used by several threads."""

    def __init__(self, spec: HookSpec) -> None:
        """Raises `PolicyError` where a function cannot be had."""
        self.spec = spec
        self._ask: Callable[[Question], Any] = (
            self._post if spec.url else loaded(spec.call, f"policy: hook '{spec.name}': expected a function", PolicyError)
        )
        if not callable(self._ask):
            raise PolicyError(f"policy: hook '{spec.name}': expected a function, '{spec.call}' is {type(self._ask).__name__}")
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix=f"hook-{spec.name}")
        # Not urllib's usual opener: photographs of people go nowhere but to the address that is named.
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect()).open

    def __call__(self, question: Question) -> tuple[str, float, str]:
        """Action, score and a sentence for the caller. Raises `HookFailed`."""
        future = self._threads.submit(self._ask, question)
        try:
            return _read(future.result(self.spec.timeout_s))
        except HookFailed:
            raise
        except TimeoutError:
            future.cancel()
            raise HookFailed(f"no answer within {self.spec.timeout_s:g} s") from None
        except BaseException as error:  # noqa: BLE001 - an operator's own code may raise anything, and may call sys.exit
            raise HookFailed(f"{type(error).__name__}: {error}") from None
        finally:
            del future  # it keeps the error whose traceback holds this frame, and so the question's pictures

    def _post(self, question: Question) -> Any:
        told = {**question, "pictures": [base64.b64encode(each).decode() for each in question.get("pictures", ())]}
        request = urllib.request.Request(
            self.spec.url, json.dumps(told).encode(), {"Content-Type": "application/json"}, method="POST"
        )
        with self._open(request, timeout=self.spec.timeout_s) as response:
            content = response.read(MAX_ANSWER_BYTES + 1)
        if len(content) > MAX_ANSWER_BYTES:
            raise ValueError(f"expected an answer of at most {MAX_ANSWER_BYTES} bytes")
        return json.loads(content)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """A service elsewhere was not named."""
        return None


def _read(answer: Any) -> tuple[str, float, str]:
    actions: Sequence[str] = (ALLOW, REVIEW, REFUSE)
    if not isinstance(answer, Mapping) or answer.get("action") not in actions:
        raise HookFailed(f"expected an object with 'action', one of {', '.join(actions)}, got {str(answer)[:100]!r}")
    score, reason = answer.get("score", 0.0), answer.get("reason", "")
    if isinstance(score, bool) or not isinstance(score, int | float) or not abs(score) <= MAX_SCORE:  # NaN is not, either
        raise HookFailed(f"expected 'score', a number of at most {MAX_SCORE:g}, got {type(score).__name__}")
    if not isinstance(reason, str):
        raise HookFailed(f"expected 'reason', a text, got {type(reason).__name__}")
    return answer["action"], float(score), " ".join(reason.split())[:300]
