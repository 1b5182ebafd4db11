"""Who may do what: the filters that a call passes on its way to a server, in their order.

A tenant's header from outside is removed; the token is checked, and names the tenant; the model's name is read; what is not public is
refused; the tenant's quota is counted. Of a stream `streams.lua` reads the names in all messages: models that a backend of Triton runs
refuse nobody, so the servers are no second wall there. Further messages are not counted: a server's admission shares them out among
tenants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from faceclip_serving.contract.callers import TENANT_HEADER
from faceclip_serving.contract.names import PUBLIC, model_name

from .grpc_fields import OF_A_MODEL, OF_THE_SERVER, SERVICE, STREAM, descriptors
from .proxy import Proxy, Quota, Tokens

ISSUER = "issuer"
"""The cluster from which the issuer's keys are fetched."""
ENDLESS = 1_000_000
"""Where Envoy wants a limit and we have none."""
_FIELDS = "envoy.filters.http.grpc_field_extraction"
_TOKENS, _CLAIMS = "envoy.filters.http.jwt_authn", "claims"
TENANT = r"[^\pC\pZ]([^\pC]*[^\pC\pZ])?"
"""A tenant's name: no control characters, no blanks around it. Envoy itself would let in a list, as text in base64."""
_STREAMS = Path(__file__).with_name("streams.lua")
_INFERENCE = f"ModelInfer|{STREAM}"


def filters(proxy: Proxy) -> list[dict[str, Any]]:
    known = [_tokens(proxy.tokens)] if proxy.tokens else []
    within = [_quotas(proxy.quotas)] if proxy.quotas else []
    return [_strangers(), *known, _fields(), _allowed(proxy), _streams(proxy), *within, _filter("router", "router.v3.Router")]


def _filter(name: str, kind: str, **told: Any) -> dict[str, Any]:
    return {
        "name": f"envoy.filters.http.{name}",
        "typed_config": {"@type": f"type.googleapis.com/envoy.extensions.filters.http.{kind}", **told},
    }


def _strangers() -> dict[str, Any]:
    removed = {"request_mutations": [{"remove": TENANT_HEADER}]}
    return _filter("header_mutation", "header_mutation.v3.HeaderMutation", mutations=removed)


def _tokens(tokens: Tokens) -> dict[str, Any]:
    keys: dict[str, Any] = {"local_jwks": {"filename": tokens.jwks}}
    if tokens.remote:
        uri = {"uri": tokens.jwks, "cluster": ISSUER, "timeout": "5s"}
        keys = {"remote_jwks": {"http_uri": uri, "cache_duration": "600s", "async_fetch": {}}}
    provider = {
        "issuer": tokens.issuer,
        "audiences": [tokens.audience],
        "require_expiration": True,
        "from_headers": [{"name": "authorization", "value_prefix": prefix} for prefix in ("Bearer ", "bearer ")],
        "payload_in_metadata": _CLAIMS,
        "claim_to_headers": [{"header_name": TENANT_HEADER, "claim_name": tokens.tenant_claim}],
        **keys,
    }
    return _filter(
        "jwt_authn",
        "jwt_authn.v3.JwtAuthentication",
        providers={"issuer": provider},
        rules=[{"match": {"prefix": "/"}, "requires": {"provider_name": "issuer"}}],
    )


def _fields() -> dict[str, Any]:
    wanted: dict[str, Any] = {
        f"{SERVICE}.{method}": {"request_field_extractions": {field: {}}} for method, field in OF_A_MODEL.items()
    }
    return _filter(
        "grpc_field_extraction",
        "grpc_field_extraction.v3.GrpcFieldExtractionConfig",
        descriptor_set={"inline_bytes": descriptors()},
        extractions_by_method=wanted,
    )


def _allowed(proxy: Proxy) -> dict[str, Any]:
    models = _models(proxy)
    who = [_named(proxy.tokens.tenant_claim) if proxy.tokens else {"any": True}]
    of_models = []
    for field in dict.fromkeys(OF_A_MODEL.values()):
        methods = [_method(method) for method, named in OF_A_MODEL.items() if named == field]
        of_models.append({"and_rules": {"rules": [_any(methods), _any([_names(field, model) for model in models])]}})
    return _filter(
        "rbac",
        "rbac.v3.RBAC",
        rules={
            "action": "ALLOW",
            "policies": {
                "public-models": {"permissions": of_models, "principals": who},
                "streams": {"permissions": [_method(STREAM)], "principals": who},
                "what-the-server-is": {"permissions": [_method(method) for method in OF_THE_SERVER], "principals": who},
            },
        },
    )


def _models(proxy: Proxy) -> list[str]:
    return [model_name(role, deployment) for deployment in proxy.deployments for role in PUBLIC]


def _streams(proxy: Proxy) -> dict[str, Any]:
    """Makes a name that is not public nobody's."""
    models = ", ".join(f'"{model}"' for model in _models(proxy))
    script = f"local MODELS = {{{models}}}\n{_STREAMS.read_text()}"
    return _filter("lua", "lua.v3.Lua", default_source_code={"inline_string": script})


def _any(rules: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"or_rules": {"rules": list(rules)}}


def _method(method: str) -> dict[str, Any]:
    return {"url_path": {"path": {"exact": f"/{SERVICE}/{method}"}}}


def _names(field: str, model: str) -> dict[str, Any]:
    exactly = {"list_match": {"one_of": {"string_match": {"exact": model}}}}
    return _known(_FIELDS, [field], exactly)


def _named(claim: str) -> dict[str, Any]:
    """Whoever has a token that names a tenant, by text."""
    return _known(_TOKENS, [_CLAIMS, claim], {"string_match": {"safe_regex": {"regex": TENANT}}})


def _known(source: str, path: Sequence[str], value: Mapping[str, Any]) -> dict[str, Any]:
    """What an earlier filter has found."""
    matcher = {"filter": source, "path": [{"key": key} for key in path], "value": value}
    return {"sourced_metadata": {"metadata_matcher": matcher, "metadata_source": "DYNAMIC"}}


def _quotas(quotas: Sequence[Quota]) -> dict[str, Any]:
    """Calls of models alone are counted. Who has no quota passes by the bucket of all, which is as good as endless."""
    path = {"name": ":path", "string_match": {"safe_regex": {"regex": f"/{SERVICE}/({_INFERENCE})"}}}
    actions = [
        {"header_value_match": {"descriptor_key": "call", "descriptor_value": "inference", "headers": [path]}},
        {"request_headers": {"header_name": TENANT_HEADER, "descriptor_key": "tenant"}},
    ]
    always = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    return _filter(
        "local_ratelimit",
        "local_ratelimit.v3.LocalRateLimit",
        stat_prefix="tenants",
        filter_enabled=always,
        filter_enforced=always,
        rate_limited_as_resource_exhausted=True,
        token_bucket=_bucket(ENDLESS, 1.0),
        always_consume_default_token_bucket=False,
        max_dynamic_descriptors=10_000,
        rate_limits=[{"actions": actions}],
        descriptors=[_quota(quota) for quota in sorted(quotas, key=lambda quota: not quota.tenant)],  # the named before any
    )


def _quota(quota: Quota) -> dict[str, Any]:
    tenant = {"key": "tenant", **({"value": quota.tenant} if quota.tenant else {})}
    entries = [{"key": "call", "value": "inference"}, tenant]
    return {"entries": entries, "token_bucket": _bucket(quota.requests, quota.seconds)}


def _bucket(requests: int, seconds: float) -> dict[str, Any]:
    return {
        "max_tokens": requests,
        "tokens_per_fill": requests,
        "fill_interval": f"{_decimal(seconds)}s",
    }


def _decimal(seconds: float) -> str:
    """Without an exponent, which Envoy does not read."""
    return f"{seconds:.9f}".rstrip("0").rstrip(".")
