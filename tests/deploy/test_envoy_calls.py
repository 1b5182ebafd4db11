"""Calls through a real Envoy, to servers of this test: how large one may be, how much all together, and how many servers one reaches
that kills them."""

import http.server
import json
import socketserver
import subprocess
import threading
from concurrent import futures
from contextlib import ExitStack, contextmanager

import grpc
import pytest
from tritonclient.grpc import service_pb2

from faceclip_serving.contract.callers import FACE_HEADER
from faceclip_serving.face.photos import MAX_BYTES
from server.fleet.envoy.grpc_fields import SERVICE
from server.fleet.envoy.proxy import Listener, Proxy, Server, socket_address

from .envoy import ENVOY, NEEDS_ENVOY, written
from .test_chart_envoy import connects, free_port, wait_until

MOST_HELD = 40
"""Calls of a test at once."""
LIMITLESS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@contextmanager
def serving(server):
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def proxy(grpc_ports, folder, heap_bytes=None, **told):
    """Address of an Envoy before servers that are all ready. `told`: more of the proxy."""
    with ExitStack() as stack:
        health = stack.enter_context(serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ready)))
        port, admin = free_port(), free_port()
        servers = [Server("127.0.0.1", each, health) for each in grpc_ports]
        listens = {"listeners": [Listener("127.0.0.1", port)], "admin": socket_address("127.0.0.1", admin)}
        file = written(Proxy(servers, **listens, **told), folder)
        if heap_bytes is not None:
            document = json.loads(file.read_text())
            document["overload_manager"]["resource_monitors"][0]["typed_config"]["max_heap_size_bytes"] = heap_bytes
            file.write_text(json.dumps(document))
        with (folder / "said").open("w") as said:
            running = subprocess.Popen([ENVOY, "-c", file, "--disable-hot-restart", "-l", "warning"], stderr=said)
        try:
            wait_until(lambda: connects(port))
            yield f"127.0.0.1:{port}"
        finally:
            running.kill()
            running.wait()


def send(url, data=b"", headers=()):
    message = service_pb2.ModelInferRequest(model_name="faceclip", raw_input_contents=[data])
    with grpc.insecure_channel(url, options=LIMITLESS) as channel:
        call = channel.unary_unary(f"/{SERVICE}/ModelInfer", request_serializer=service_pb2.ModelInferRequest.SerializeToString)
        return call(message, timeout=60, metadata=headers)


@NEEDS_ENVOY
def test_a_call_that_kills_servers_reaches_one(tmp_path):
    killed = []

    class Dies(socketserver.BaseRequestHandler):
        def handle(self):
            seen = b""
            while b"faceclip" not in seen and (data := self.request.recv(65536)):
                seen += data
            killed.append(b"faceclip" in seen)

    with ExitStack() as stack:
        ports = [stack.enter_context(serving(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Dies))) for _ in range(6)]
        url = stack.enter_context(proxy(ports, tmp_path))
        with pytest.raises(grpc.RpcError):
            send(url)
    assert sum(killed) == 1, "the client sends it once more"


@NEEDS_ENVOY
def test_it_starts_without_a_warning(tmp_path):
    with proxy([free_port()], tmp_path):
        assert "[warning]" not in (tmp_path / "said").read_text()


@NEEDS_ENVOY
def test_the_largest_request_passes(tmp_path):
    """Six files of the most that a server reads, in base64, and a little."""

    class Counts(grpc.GenericRpcHandler):
        def service(self, _):
            return grpc.unary_unary_rpc_method_handler(lambda data, _: str(len(data)).encode())

    server = grpc.server(futures.ThreadPoolExecutor(1), options=LIMITLESS)
    server.add_generic_rpc_handlers((Counts(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        size = 6 * MAX_BYTES * 4 // 3 + MAX_BYTES
        with proxy([port], tmp_path) as url:
            assert int(send(url, bytes(size))) > size
    finally:
        server.stop(0)


@NEEDS_ENVOY
def test_calls_that_hold_too_much_are_given_up_and_others_go_on(tmp_path):
    """One of 3 MiB after the other, and none is answered, until 48 MiB are full: whoever comes then shall not wait for one of them."""
    over, calls_of_3_mib, arrived = threading.Event(), bytes(3 * 2**20), threading.Semaphore(0)

    class Waits(grpc.GenericRpcHandler):
        def service(self, _):
            return grpc.unary_unary_rpc_method_handler(self.answer)

        def answer(self, data, _):
            if len(data) > 2**20:
                arrived.release()
                over.wait()
            return b""

    def passes(data):
        try:
            return send(url, data) is not None
        except grpc.RpcError as error:
            return error.details()

    server = grpc.server(futures.ThreadPoolExecutor(MOST_HELD), options=LIMITLESS)
    server.add_generic_rpc_handlers((Waits(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with ExitStack() as stack:
            url = stack.enter_context(proxy([port], tmp_path, heap_bytes=48 * 2**20))
            callers = stack.enter_context(futures.ThreadPoolExecutor(MOST_HELD))
            stack.callback(over.set)
            wait_until(lambda: passes(b"") is True)
            held = []
            while not any(each.done() for each in held):
                assert len(held) < MOST_HELD, "more than there is room for"
                held.append(callers.submit(passes, calls_of_3_mib))
                arrived.acquire(timeout=5)
            wait_until(lambda: passes(b"") is True)
            over.set()
            told = {each.result() for each in held} - {True, "no healthy upstream"}  # where /ready of this test is slow
            assert told and all("overloaded" in each or "RST_STREAM" in each for each in told), told
            wait_until(lambda: passes(calls_of_3_mib) is True)
    finally:
        server.stop(0)


@NEEDS_ENVOY
@pytest.mark.parametrize("by_face", [True, False])
def test_equal_faces_go_to_one_server_where_that_is_wanted(by_face, tmp_path):
    class Says(grpc.GenericRpcHandler):
        def __init__(self, name):
            self.name = name

        def service(self, _):
            return grpc.unary_unary_rpc_method_handler(lambda data, _: self.name)

    with ExitStack() as stack:
        ports = []
        for name in (b"one", b"two", b"three"):
            server = grpc.server(futures.ThreadPoolExecutor(1))
            server.add_generic_rpc_handlers((Says(name),))
            ports.append(server.add_insecure_port("127.0.0.1:0"))
            server.start()
            stack.callback(server.stop, 0)
        url = stack.enter_context(proxy(ports, tmp_path, by_face=by_face))
        drawn_by = [{send(url, headers=((FACE_HEADER, f"face {face}"),)) for _ in range(6)} for face in range(12)]
    assert len(set.union(*drawn_by)) == 3
    assert all(len(each) == 1 for each in drawn_by) is by_face
