"""Which models the messages of a stream name, as a server behind a real Envoy reads them: public ones as they are, others as nobody's."""

import itertools
import socket
import zlib
from concurrent import futures

import grpc
import pytest
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from faceclip_serving.contract.names import COMPONENTS, ENSEMBLE, FINISH, PREPARE, PUBLIC, SAMPLER, model_name
from server.fleet.envoy.grpc_fields import SERVICE

from .envoy import NEEDS_ENVOY
from .test_envoy_calls import LIMITLESS, proxy

pytestmark = NEEDS_ENVOY

METHOD = f"/{SERVICE}/ModelStreamInfer"
DEPLOYMENTS = ("faceclip", "flux")
ROLES = (*PUBLIC, *COMPONENTS, ENSEMBLE, PREPARE, SAMPLER, FINISH)
PUBLIC_MODELS = {model_name(role, deployment) for role in PUBLIC for deployment in DEPLOYMENTS}
MODELS = {model_name(role, deployment) for role in ROLES for deployment in DEPLOYMENTS}
"""All that a server of these two deployments has."""
FIRST = b"\x0a\x0ffaceclip_stream"
CALLS = itertools.count()


def named(name):
    """A field of a message that names its model."""
    return b"\x0a" + number(len(name)) + name


def number(value):
    found = b""
    while value >= 128:
        found, value = found + bytes([value % 128 + 128]), value // 128
    return found + bytes([value])


def framed(message, compressed=0):
    return bytes([compressed]) + len(message).to_bytes(4, "big") + message


class Records(grpc.GenericRpcHandler):
    """A server that notes which model each message of a stream names, or that one cannot be read."""

    def __init__(self):
        self.read = {}
        """What a caller calls his stream -> names, None for what cannot be read."""

    def service(self, details):
        return grpc.stream_stream_rpc_method_handler(self.answer)

    def answer(self, messages, context):
        read = self.read.setdefault(dict(context.invocation_metadata())["call"], [])
        for message in messages:
            try:
                read.append(service_pb2.ModelInferRequest.FromString(message).model_name)
            except DecodeError:
                read.append(None)
            yield b""


@pytest.fixture(scope="module")
def behind(tmp_path_factory):
    """Address of an Envoy, and the server behind it."""
    records = Records()
    server = grpc.server(futures.ThreadPoolExecutor(8), options=LIMITLESS)
    server.add_generic_rpc_handlers((records,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with proxy([port], tmp_path_factory.mktemp("envoy"), deployments=DEPLOYMENTS) as url:
        yield url, records
    server.stop(0)


def stream(behind, messages):
    """What the server reads of a stream of these."""
    url, records = behind
    call = str(next(CALLS))
    with grpc.insecure_channel(url, options=LIMITLESS) as channel:
        list(channel.stream_stream(METHOD)(iter(messages), timeout=60, metadata=(("call", call),)))
    return records.read[call]


def in_pieces(behind, pieces):
    """What the server reads of a stream whose bytes come in these DATA frames of HTTP/2; where it breaks off, perhaps not all of it."""
    url, records = behind

    def frame(kind, flags, stream, payload):
        return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload

    def text(value):
        return bytes([len(value)]) + value.encode()

    call = str(next(CALLS))
    headers = {":method": "POST", ":scheme": "http", ":path": METHOD, ":authority": "a"}
    headers |= {"content-type": "application/grpc", "grpc-encoding": "deflate", "te": "trailers", "call": call}
    block = b"".join(b"\0" + text(name) + text(value) for name, value in headers.items())
    sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + frame(1, 4, 1, block)
    sent += b"".join(frame(0, 0, 1, piece) for piece in pieces) + frame(0, 1, 1, b"")
    with socket.create_connection(url.split(":"), timeout=60) as connection, connection.makefile("rb") as answers:
        connection.sendall(sent)
        while len(head := answers.read(9)) == 9:
            answers.read(int.from_bytes(head[:3], "big"))
            kind, flags, number = head[3], head[4], int.from_bytes(head[5:], "big")
            if number == 1 and (kind == 3 or (kind in (0, 1) and flags & 1)):  # it is reset, or ends
                break
    return records.read.get(call, [])


def one_by_one(data):
    return [data[place : place + 1] for place in range(len(data))]


@pytest.mark.parametrize("model", sorted(MODELS))
def test_a_stream_reaches_public_models_alone(behind, model):
    """By its first message and by further ones."""
    first, second, third = stream(behind, [named(model.encode()), FIRST, named(model.encode())])
    assert second == "faceclip_stream" and first == third
    assert first == model if model in PUBLIC_MODELS else first not in MODELS and "?" in first


def test_a_name_is_read_however_its_bytes_come(behind):
    """Triton takes a name to end at its first zero, so what is before one counts as well."""
    near = ("faceclip", "faceclip_s", "faceclip_streams", "faceclip\0", "denoiser\0x", "sampler", "x" * 300, "")
    for name in near:
        data = framed(FIRST) + framed(b"\x12\x011" + named(name.encode()) + b"\x1a\x01x") + framed(FIRST)
        start = len(framed(FIRST))
        halves = [[data[:place], data[place:]] for place in range(start, len(data) if len(name) < 99 else start + 20)]
        for pieces in (one_by_one(data), *halves):
            first, further, last = in_pieces(behind, pieces)
            assert first == last == "faceclip_stream"
            assert further == name if name in (*PUBLIC_MODELS, "") else further.partition("\0")[0] not in MODELS, pieces


@pytest.mark.parametrize("other", ["sampler", "denoiser", "vae_decoder"])
def test_of_several_names_none_may_be_an_inner_one(behind, other):
    """And a name is found behind, before and among fields of every kind, in every form that protobuf reads."""
    other, public = other.encode(), named(b"faceclip")
    length = bytes([len(other)])
    fields = (
        b"\x12\x011"
        + b"\xf8\x01"
        + b"\xff" * 9
        + b"\x01"
        + b"\xf9\x01"
        + bytes(8)
        + b"\xfd\x01"
        + bytes(4)
        + b"\x2a"
        + number(5000)
        + bytes(5000)
    )
    known = b"\x12\x011" + b"\x3a" + number(300) + named(b"denoiser") * 30  # bytes of a tensor, which look like names
    for message in (
        public + named(other),
        named(other) + named(other),
        fields + named(other),
        public + fields + named(other) + fields,
        public + b"\x8a\0" + length + other,
        public + b"\x8a\x80\x80\x80\0" + bytes([length[0] + 128, 0]) + other,
        public + b"\x8a\x80\x80\x80\x10" + length + other,
        public + b"\x0b\x0c" + named(other),
        public + b"\x0b" + named(other) + b"\x0c",
        known + named(other),
    ):
        data = framed(FIRST) + framed(message)
        for pieces in ([framed(FIRST), framed(message)], [data], [*one_by_one(data[:200]), data[200:]]):
            read = in_pieces(behind, pieces)
            assert read[:1] in ([], ["faceclip_stream"]) and not {*read[1:]} & MODELS, message[:40]
    assert in_pieces(behind, [framed(FIRST) + framed(known + public + b"\x32\0" * 500)]) == ["faceclip_stream", "faceclip"]


def test_what_cannot_be_read_names_nothing_to_the_end_of_the_stream(behind):
    inner, public = named(b"denoiser"), named(b"faceclip")
    compressed = b"\x18\x95\xe3\xe2HI\xcd\xcb\xcf,N-\xb2b\xb1xU\xac\x04\0*/\x05a"  # has the form of fields as well
    assert zlib.decompress(compressed).startswith(inner)
    for bad in (
        framed(compressed, compressed=1),
        framed(public, compressed=2),
        framed(b"\x0a\xff\xff\xff\xff\x0f" + b"faceclip"),
        framed(b"\x0a\x09faceclip"),
        framed(b"\x02\x01x" + inner),
        framed(b"\x0c" + inner),
        framed(b"\x0e" + inner),
        framed(b"\x80" * 6 + inner),
        framed(b"\x10" + b"\xff" * 11 + inner),
        framed(b"\x0a"),
        framed(public + b"\x80"),
        framed(public * 1100),
    ):
        data = framed(FIRST) + bad + framed(inner) + framed(public)
        for pieces in ([data], [data[:-300], *one_by_one(data[-300:])]):  # the server hangs up when thousands are so small
            read = in_pieces(behind, pieces)
            assert read[:1] in ([], ["faceclip_stream"]) and not any(read[1:]), bad


def test_many_messages_and_large_ones_pass_as_they_are(behind):
    large = service_pb2.ModelInferRequest(model_name="faceclip_stream", raw_input_contents=[bytes(range(256)) * 117_000])
    small = service_pb2.ModelInferRequest(model_name="faceclip_cancel", id="a", raw_input_contents=[b"x"])
    assert stream(behind, [each.SerializeToString() for each in (large, *itertools.repeat(small, 2000), large)]) == [
        "faceclip_stream",
        *itertools.repeat("faceclip_cancel", 2000),
        "faceclip_stream",
    ]
