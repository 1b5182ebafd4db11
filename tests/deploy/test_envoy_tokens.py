"""Who is let in by a real Envoy, and whom it says that a caller is: to a server of this test, which tells what it hears."""

from concurrent import futures

import grpc
import pytest
from tritonclient.grpc import service_pb2

from faceclip_serving.contract.callers import TENANT_HEADER
from server.fleet.envoy.grpc_fields import SERVICE
from server.fleet.envoy.proxy import Quota, Tokens

from .envoy import NEEDS_ENVOY
from .test_envoy_calls import proxy
from .tokens import Issuer

pytestmark = NEEDS_ENVOY


class Tells(grpc.GenericRpcHandler):
    """Whom a server takes its caller for."""

    def service(self, details):
        heard = dict(details.invocation_metadata)
        assert "authorization" not in heard
        return grpc.unary_unary_rpc_method_handler(lambda data, _: heard[TENANT_HEADER].encode())


@pytest.fixture(scope="module")
def issuer():
    return Issuer()


@pytest.fixture(scope="module")
def channel(issuer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens")
    (folder / "jwks.json").write_text(issuer.jwks())
    server = grpc.server(futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((Tells(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    tokens = Tokens(issuer.name, "faceclip", str(folder / "jwks.json"))
    with proxy([port], folder, tokens=tokens, quotas=[Quota(10_000, 60)]) as url, grpc.insecure_channel(url) as channel:
        yield channel
    server.stop(0)


def call(channel, headers, query="", **options):
    """The tenant, or the status and what was said."""
    infer = channel.unary_unary(
        f"/{SERVICE}/ModelInfer{query}", request_serializer=service_pb2.ModelInferRequest.SerializeToString
    )
    try:
        request = service_pb2.ModelInferRequest(model_name="faceclip", raw_input_contents=[bytes(1000)])
        return infer(request, metadata=tuple(headers.items()), wait_for_ready=True, timeout=30, **options).decode()
    except grpc.RpcError as error:
        return error.code().name, error.details()


@pytest.mark.parametrize("tenant", ["shop", "5", "true", "a b", "a, b", "é", '"x"', "[]", "x" * 1000])
def test_a_tenant_is_the_text_in_the_token(channel, issuer, tenant):
    assert call(channel, issuer.headers(tenant)) == tenant


@pytest.mark.parametrize(
    "tenant", [None, 5, 0, 1.5, True, False, [], ["shop"], {}, {"a": "shop"}, "", " ", " x", "x ", "a\nb", "a\x01b"]
)
def test_what_is_no_tenants_name_lets_nobody_in(channel, issuer, tenant):
    assert call(channel, issuer.headers(tenant)) == ("PERMISSION_DENIED", "RBAC: access denied")


def test_a_token_comes_by_the_header_however_its_kind_is_spelt(channel, issuer):
    token = issuer.token()
    for kind in ("Bearer", "bearer"):
        assert call(channel, {"authorization": f"{kind} {token}"}) == "shop"
    for said in (token, f"Basic {token}"):
        assert call(channel, {"authorization": said})[0] == "UNAUTHENTICATED"
    assert call(channel, {}, query=f"?access_token={token}")[0] == "UNAUTHENTICATED"


def test_a_compressed_message_is_refused_as_the_docs_say(channel, issuer):
    """Envoy cannot read the model's name in it."""
    status, said = call(channel, issuer.headers(), compression=grpc.Compression.Gzip)
    assert status == "INVALID_ARGUMENT" and "Compressed-Flag" in said
