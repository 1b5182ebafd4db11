"""How this package reaches a server: over gRPC and HTTP, never through a proxy that the environment names for other addresses."""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tritonclient.grpc as grpc

_CHANNEL = [("grpc.enable_http_proxy", 0), ("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]

open_url = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
"""As `urllib.request.urlopen`."""


def grpc_client(url: str, headers: Mapping[str, str] | None = None) -> grpc.InferenceServerClient:
    """A client to be used in a `with` statement. `headers` go with every call."""
    import tritonclient.grpc as grpc
    from tritonclient.grpc import InferenceServerClientPlugin

    class Headers(InferenceServerClientPlugin):  # type: ignore[misc]
        def __call__(self, request: Any) -> None:
            request.headers.update(headers or {})

    client = grpc.InferenceServerClient(url, channel_args=_CHANNEL)
    client.register_plugin(Headers())
    return client
