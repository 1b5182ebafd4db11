"""Envoy's configuration: `deploy/envoy/envoy.yaml` is one rendering of it, with the reasons.

A call goes to the server with the fewest in flight, of those that say that they are ready. One that a server refused is sent again. One
that broke off is not: it may be what brought the server down, and the client alone sends it again, once.

gRPC alone: over HTTP Triton answers 400 for a full server, and no proxy can tell that from
a fault of the caller.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from faceclip_serving.contract.callers import FACE_HEADER

from .filters import ENDLESS, ISSUER, filters
from .grpc_fields import SERVICE
from .memory import MOST_REQUEST_BYTES, overload
from .proxy import Listener, Proxy, Server, Tls, Tokens, socket_address

READY_EVERY_S = 1
"""How often a server is asked whether it is ready. A no counts at once, silence when it comes twice."""
READY_TIMEOUT_S = 2
RETRIES = 3
"""With time between them: a server that is gone or drains has the fewest in flight, so the search for the least busy finds it again,
whatever was tried before, until it is known to be away."""
_API = "type.googleapis.com/envoy."


def bootstrap(proxy: Proxy) -> dict[str, Any]:
    """Plain values, for YAML or JSON."""
    issuer = [_issuer(proxy.tokens)] if proxy.tokens and proxy.tokens.remote else []
    return {
        "admin": {"address": dict(proxy.admin)},
        "overload_manager": overload(proxy.memory_gib),
        "static_resources": {
            "listeners": [_listener(each, proxy) for each in proxy.listeners],
            "clusters": [_servers(proxy), *issuer],
        },
    }


def _extension(name: str, kind: str, **told: Any) -> dict[str, Any]:
    return {"name": f"envoy.{name}", "typed_config": {"@type": f"{_API}{kind}", **told}}


# ------------------------------------------------------------------------------------------------------------------ callers come in
def _listener(listener: Listener, proxy: Proxy) -> dict[str, Any]:
    manager = _extension(
        "filters.network.http_connection_manager",
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="callers",
        codec_type="HTTP2",
        stream_idle_timeout="0s",
        request_headers_timeout="10s",
        http_filters=filters(proxy),
        route_config={"name": "servers", "virtual_hosts": [_host(proxy)]},
        access_log=[_refused()],
    )
    chain: dict[str, Any] = {"filters": [manager]}
    if listener.tls is not None:
        common = {"tls_certificates": [_pair(listener.tls)], "alpn_protocols": ["h2"]}
        chain["transport_socket"] = _tls("DownstreamTlsContext", common)
    return {
        "name": f"{'grpcs' if listener.tls else 'grpc'}-{listener.port}",
        "address": socket_address(listener.address, listener.port),
        "per_connection_buffer_limit_bytes": MOST_REQUEST_BYTES,
        "filter_chains": [chain],
    }


def _host(proxy: Proxy) -> dict[str, Any]:
    previous = "extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
    retry = {
        "retry_on": "connect-failure,refused-stream,unavailable",
        "num_retries": RETRIES,
        "retry_back_off": {"base_interval": "0.25s", "max_interval": "1s"},
        "retry_host_predicate": [_extension("retry_host_predicates.previous_hosts", previous)],
        "host_selection_retry_max_attempts": 5,
    }
    route: dict[str, Any] = {"cluster": "servers", "timeout": "0s", "retry_policy": retry}
    if proxy.by_face:
        route["hash_policy"] = [{"header": {"header_name": FACE_HEADER}}]
    return {
        "name": "servers",
        "domains": ["*"],
        "request_body_buffer_limit": MOST_REQUEST_BYTES,
        "routes": [{"match": {"prefix": f"/{SERVICE}/"}, "route": route}],
    }


def _refused() -> dict[str, Any]:
    """A line, JSON, for each call that did not end well: servers log those that reach them, not those that do not."""
    told = {
        "event": "proxy",
        "time": "%START_TIME%",
        "tenant": "%REQ(X-FACECLIP-TENANT)%",
        "method": "%PATH(NQ)%",
        "status": "%GRPC_STATUS%",
        "why": "%RESPONSE_CODE_DETAILS%",
        "flags": "%RESPONSE_FLAGS%",
        "seconds": "%DURATION%",
        "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
        "server": "%UPSTREAM_HOST%",
        "caller": "%DOWNSTREAM_REMOTE_ADDRESS%",
    }
    log = _extension(
        "access_loggers.stderr", "extensions.access_loggers.stream.v3.StderrAccessLog", log_format={"json_format": told}
    )
    return {**log, "filter": {"grpc_status_filter": {"statuses": ["OK"], "exclude": True}}}


# ------------------------------------------------------------------------------------------------------------------ the servers behind
def _servers(proxy: Proxy) -> dict[str, Any]:
    http2: dict[str, Any] = {"explicit_http_config": {"http2_protocol_options": {}}}
    options = f"{_API}extensions.upstreams.http.v3.HttpProtocolOptions"
    cluster: dict[str, Any] = {
        "name": "servers",
        "cluster_type": _extension("cluster.dns", "extensions.clusters.dns.v3.DnsCluster", dns_refresh_rate="1s"),
        "connect_timeout": "2s",
        "per_connection_buffer_limit_bytes": MOST_REQUEST_BYTES,
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {"@type": options, **http2}
        },
        "upstream_connection_options": {
            "tcp_keepalive": {"keepalive_time": 30, "keepalive_interval": 10, "keepalive_probes": 3}
        },
        "load_balancing_policy": {"policies": [{"typed_extension_config": _spread(proxy.by_face)}]},
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}, "update_merge_window": "0s"},
        "circuit_breakers": {
            "thresholds": [dict.fromkeys(("max_connections", "max_pending_requests", "max_requests", "max_retries"), ENDLESS)]
        },
        "health_checks": [
            {
                "http_health_check": {"path": "/ready"},
                "interval": f"{READY_EVERY_S}s",
                "no_traffic_interval": f"{READY_EVERY_S}s",
                "timeout": f"{READY_TIMEOUT_S}s",
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
            }
        ],
        "outlier_detection": {
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": 2,
            "enforcing_consecutive_5xx": 0,
            "enforcing_consecutive_gateway_failure": 0,
            "enforcing_success_rate": 0,
            "enforcing_local_origin_success_rate": 0,
            "interval": "1s",
            "base_ejection_time": "3s",
            "max_ejection_time": "30s",
            "max_ejection_percent": 100,
            "successful_active_health_check_uneject_host": False,
        },
        "load_assignment": {
            "cluster_name": "servers",
            "endpoints": [{"lb_endpoints": [_endpoint(server) for server in proxy.servers]}],
        },
    }
    if proxy.upstream is not None:
        common: dict[str, Any] = {
            "validation_context": {"trusted_ca": {"filename": str(proxy.upstream.authority)}},
            "alpn_protocols": ["h2"],
        }
        if proxy.upstream.own is not None:
            common["tls_certificates"] = [_pair(proxy.upstream.own)]
        cluster["transport_socket"] = _tls("UpstreamTlsContext", common, auto_host_sni=True, auto_sni_san_validation=True)
    return cluster


def _spread(by_face: bool) -> dict[str, Any]:
    policies = "extensions.load_balancing_policies"
    if by_face:
        bounded = {"hash_balance_factor": 125}
        return _extension(
            "load_balancing_policies.ring_hash", f"{policies}.ring_hash.v3.RingHash", consistent_hashing_lb_config=bounded
        )
    return _extension(
        "load_balancing_policies.least_request", f"{policies}.least_request.v3.LeastRequest", selection_method="FULL_SCAN"
    )


def _endpoint(server: Server) -> dict[str, Any]:
    asked = {"port_value": server.health}
    return {
        "endpoint": {
            "address": socket_address(server.host, server.grpc),
            "health_check_config": asked,
            "hostname": server.host,
        }
    }


def _issuer(tokens: Tokens) -> dict[str, Any]:
    parts = urlsplit(tokens.jwks)
    host, port = parts.hostname or "", parts.port or 443
    authorities = {"trusted_ca": {"filename": "/etc/ssl/certs/ca-certificates.crt"}}
    return {
        "name": ISSUER,
        "type": "STRICT_DNS",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": ISSUER,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket_address(host, port)}}]}],
        },
        "transport_socket": _tls(
            "UpstreamTlsContext", {"validation_context": authorities}, sni=host, auto_sni_san_validation=True
        ),
    }


def _pair(tls: Tls) -> dict[str, Any]:
    return {"certificate_chain": {"filename": str(tls.certificate)}, "private_key": {"filename": str(tls.key)}}


def _tls(kind: str, common: dict[str, Any], **told: Any) -> dict[str, Any]:
    return _extension("transport_sockets.tls", f"extensions.transport_sockets.tls.v3.{kind}", common_tls_context=common, **told)
