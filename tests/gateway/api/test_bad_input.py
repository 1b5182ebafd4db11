"""Whatever is sent, the answer is OpenAI's, says which field, what was expected and what came; and the gateway goes on."""

import json
import socket

import httpx
import pytest

from tests.gateway.running import running, until

URL = "/v1/images/generations"
SMALL = {"prompt": "a castle", "num_inference_steps": 1, "height": 64, "width": 64}
LIMITS = ("--upload-mib=2", "--upload-parts=20", "--upload-timeout=2")


@pytest.fixture(scope="module")
def narrow(server, tmp_path_factory):
    with running(server.url, tmp_path_factory.mktemp("narrow"), *LIMITS) as started:
        yield started


def error(answer, status, param=None, code=None):
    told = answer.json()["error"]
    assert (answer.status_code, told["param"]) == (status, param), told
    assert set(told) == {"message", "type", "param", "code"} and told["message"] and told["code"]
    assert answer.headers["x-request-id"]
    assert code in (None, told["code"])
    return told


BAD_FIELDS = [
    ("n", [0, -1, 11, 2.5, "2", True, [1]]),
    ("prompt", ["", " \n", 5, None, ["a"], "x" * 10_001, "\ud800"]),
    ("size", ["64", "0x0", "64X64", "64x64x64", "-1x64", "100000x1", "", 64]),
    ("response_format", ["png", "", 1]),
    ("output_format", ["gif", "PNG", 1]),
    ("output_compression", [-1, 101, "a"]),
    ("partial_images", [-1, 4, "1"]),
    ("stream", ["true", 1]),
    ("background", ["transparent"]),
    ("model", [5, "x" * 201]),
    ("user", [5, "x" * 201]),
    ("face_images", [[], ["%%%"], [""], "aGVq", [5], ["http://127.0.0.1/x.png"], ["data:image/png,abc"], ["a" * 5] * 17]),
    ("image", ["%%%", "https://example.org/x.png", ["a"]]),
    ("mask", ["nose", "data:;base64,%%"]),
    ("identity", [[], "%%%"]),
    ("people_masks", [[]]),
    ("seed", [-1, 2**63, 1.5, "1"]),
    ("blend_weight", [-0.1, 1.1, "1", True]),
    ("id_guidance_scale", [5.1]),
    ("face_weighting", ["best", 1]),
    ("priority", ["first"]),
    ("prompt_language", ["xx"]),
    ("no_such_field", [1]),
]


@pytest.mark.parametrize("name, value", [(name, value) for name, values in BAD_FIELDS for value in values], ids=repr)
def test_a_field_that_is_wrong_is_named(narrow, name, value):
    body = json.dumps({"prompt": "a castle", name: value})
    told = error(narrow.http.post(URL, content=body, headers={"Content-Type": "application/json"}), 400, name)
    assert told["message"].startswith(f"{name}: ")


def test_what_only_the_server_knows_is_named_too(narrow):
    for name, value in (
        ("num_inference_steps", 0),
        ("height", 7),
        ("width", 10**6),
        ("scheduler", "nothing"),
        ("step_cache", -1.0),
    ):
        error(narrow.http.post(URL, json={"prompt": "a castle", name: value}), 400, name)
    error(narrow.http.post(URL, json={"prompt": "a castle", "n": 10}), 400, "n")


@pytest.mark.parametrize("path", [URL, "/v1/images/edits"])
@pytest.mark.parametrize("as_form", [False, True])
def test_a_webhook_is_refused_where_nothing_calls_it(narrow, path, as_form):
    fields = {"prompt": "a castle", "webhook_url": "https://hooks.example.org/"}
    if as_form:
        asked = {"files": {**{name: (None, text) for name, text in fields.items()}, "image": ("a.png", b"x")}}
    else:
        asked = {"json": {**fields, "face_images": ["aGVq"]}}
    assert "/v1/jobs" in error(narrow.http.post(path, **asked), 400, "webhook_url")["message"]


UNREAD = [
    (URL, {"partial_images": 2}, ["partial_images"]),
    (URL, {"partial_images": 0, "stream": False, "background": "opaque", "quality": "auto"}, []),
    (URL, {"quality": "high", "style": "vivid", "output_compression": 0}, ["output_compression", "quality", "style"]),
    ("/v1/jobs", {"stream": True, "response_format": "b64_json", "quality": "high"}, ["quality", "response_format", "stream"]),
    ("/v1/jobs", {"partial_images": 2, "stream": False, "response_format": "url"}, []),
]


@pytest.mark.parametrize("path, fields, names", UNREAD, ids=repr)
def test_what_has_no_effect_is_told(narrow, path, fields, names):
    answer = narrow.http.post(path, json={**SMALL, **fields}).json()
    if path == "/v1/jobs":
        url = answer["poll_url"]
        answer = until(lambda: narrow.http.get(url).json()["result"])
    assert answer["details"]["warnings"] == [f"{name}: has no effect here" for name in names]


@pytest.mark.parametrize("path, name", [("/v1/faces", "image"), ("/v1/verify", "picture")])
def test_unknown_fields_beside_a_file(narrow, path, name):
    told = error(narrow.http.post(path, files={name: ("a.png", b"x"), "sise": (None, "1")}), 400, "sise", "unknown_parameter")
    assert name in told["message"]


def test_a_misspelt_field_is_guessed(narrow):
    told = error(narrow.http.post(URL, json={"prompt": "a castle", "sise": "64x64"}), 400, "sise", "unknown_parameter")
    assert "did you mean 'size'?" in told["message"]


@pytest.mark.parametrize("size, height", [("64x64", 64)])
def test_a_size_is_told_once(narrow, size, height):
    error(narrow.http.post(URL, json={"prompt": "a castle", "size": size, "height": height}), 400, "size")


NOT_JSON = {
    "nothing": b"",
    "text": b"prompt=a castle",
    "half": b'{"prompt": "a cas',
    "a list": b'["a castle"]',
    "a number": b"5",
    "null": b"null",
    "not a number": b'{"prompt": "a", "seed": NaN}',
    "infinite": b'{"prompt": "a", "guidance_scale": Infinity}',
    "a number of 5000 digits": b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}",
    "no UTF-8": b'{"prompt": "\xff\xfe"}',
    "16 levels and more": b'{"prompt": "a", "consent": ' + b'{"a":' * 17 + b"1" + b"}" * 18,
    "100,000 levels": b"[" * 100_000 + b"]" * 100_000,
    "1,000,000 levels, open": b"[" * 1_000_000,
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_no_json_object_is_told(narrow, body):
    error(narrow.http.post(URL, content=body, headers={"Content-Type": "application/json"}), 400, code="invalid_json")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "image/png"])
def test_other_kinds_of_body(narrow, kind):
    headers = {"Content-Type": kind} if kind else {}
    error(narrow.http.post(URL, content=b"x", headers=headers), 415, code="unsupported_media_type")


def form(*parts, end="\r\n--b--\r\n"):
    return "".join(f"\r\n--b\r\n{part}" for part in parts)[2:] + end


PROMPT = 'Content-Disposition: form-data; name="prompt"\r\n\r\na castle'
FILE = 'Content-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
BAD_FORMS = {
    "nothing": "",
    "no last boundary": form(PROMPT, end=""),
    "cut within a part": form(PROMPT, end="\r\n--b\r\nContent-Dis"),
    "another boundary": form(PROMPT).replace("--b", "--c"),
    "no name": form("Content-Disposition: form-data\r\n\r\nx"),
    "no header": form("\r\nx"),
    "a header without end": form("X: " + "y" * 10_000 + "\r\n\r\nx"),
    "many headers": form("".join(f"X-{i}: 1\r\n" for i in range(50)) + "\r\nx"),
}


@pytest.mark.parametrize("body", BAD_FORMS.values(), ids=BAD_FORMS)
def test_what_is_no_whole_form_is_told(narrow, body):
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    error(narrow.http.post(URL, content=body.encode(), headers=headers), 400, code="invalid_form")


def test_a_form_without_a_boundary(narrow):
    headers = {"Content-Type": "multipart/form-data"}
    error(narrow.http.post(URL, content=form(PROMPT).encode(), headers=headers), 400, code="invalid_form")


@pytest.mark.parametrize(
    "files, param",
    [
        ([("prompt", (None, "a")), ("prompt", (None, "b"))], "prompt"),
        ([("prompt", ("a.txt", b"a"))], "prompt"),
        ([("prompt", (None, b"\xff\xfe"))], "prompt"),
        ([("prompt", (None, "a")), ("image", ("a.png", b""))], "image"),
        ([("prompt", (None, "a")), ("image", (None, "a.png"))], "image"),
        ([("prompt", (None, "a")), ("picture", ("a.png", b"x")), ("picture", ("a.png", b"x"))], "picture"),
        ([("prompt", (None, "a")), ("mask", ("a.png", b"x")), ("mask", ("a.png", b"x"))], "mask"),
        ([("prompt", (None, "a")), ("n", (None, "many"))], "n"),
        ([("prompt", (None, "a")), ("face_index", (None, "one"))], "face_index"),
        ([("prompt", (None, "a")), ("face_index", (None, "[[[["))], "face_index"),
        ([("prompt", (None, "a")), ("nothing", ("a.png", b"x"))], "nothing"),
    ],
    ids=repr,
)
def test_parts_that_are_wrong_are_named(narrow, files, param):
    error(narrow.http.post(URL, files=files), 400, param)


def test_files_that_are_no_photographs_are_the_servers_to_refuse(narrow):
    answer = narrow.http.post("/v1/images/edits", files={"prompt": (None, "a"), "image": ("a.png", b"no picture")})
    assert error(answer, 400, "face_images")["message"]


def test_two_hundred_parts(narrow):
    parts = [("image[]", (f"{i}.png", b"x")) for i in range(200)]
    error(narrow.http.post(URL, files=parts), 413, code="too_many_parts")


EVERY_UPLOAD = pytest.mark.parametrize(
    "path", [URL, "/v1/images/edits", "/v1/jobs", "/v1/faces", "/v1/verify", "/v1/prompts/translate", "/v1/recipes/travel"]
)
FORM = "multipart/form-data; boundary=b"


@EVERY_UPLOAD
def test_100_mb_are_refused_before_they_are_read(narrow, path):
    with raw(narrow) as connection:
        connection.sendall(head(narrow, f"Content-Length: {100 * 2**20}", path=path))
        assert b"413" in connection.recv(4096).split(b"\r\n")[0]


@EVERY_UPLOAD
def test_100_mb_that_do_not_say_so_are_refused_when_they_are_too_many(narrow, path):
    def pieces():
        for _ in range(100):
            yield b"x" * 2**20

    kind = "application/json" if path.startswith(("/v1/prompts", "/v1/recipes")) else FORM
    try:
        answer = narrow.http.post(path, content=pieces(), headers={"Content-Type": kind})
    except (httpx.WriteError, httpx.ReadError):
        return  # it hung up while we sent
    error(answer, 413, code="body_too_large")


@pytest.mark.proof
@EVERY_UPLOAD
def test_a_body_that_does_not_come(narrow, path):
    kind = "application/json" if path.startswith(("/v1/prompts", "/v1/recipes", URL)) else FORM
    with raw(narrow) as connection:
        connection.sendall(head(narrow, "Content-Length: 1000", kind, path) + b'{"prompt": ')
        assert b"408" in connection.recv(4096).split(b"\r\n")[0]


@pytest.mark.proof
@EVERY_UPLOAD
def test_a_body_without_end(narrow, path):
    """Bytes drop in, one by one, and never end."""
    kind = "application/json" if path.startswith(("/v1/prompts", "/v1/recipes", URL)) else FORM
    with raw(narrow) as connection:
        connection.sendall(head(narrow, "Transfer-Encoding: chunked", kind, path))
        connection.settimeout(0.2)
        for _ in range(100):
            connection.sendall(b"1\r\nx\r\n")
            try:
                answer = connection.recv(4096)
            except TimeoutError:
                continue
            assert b"408" in answer.split(b"\r\n")[0]
            return
    pytest.fail("it was read without end")


def head(gate, length, kind="application/json", path=URL):
    host = gate.url.removeprefix("http://")
    return f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\n{length}\r\n\r\n".encode()


def raw(gate):
    host, port = gate.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


@pytest.mark.parametrize(
    "path", ["/v1/nothing", "/v1/images", "/nothing.html", "/../gateway/app.py", "/%2e%2e/app.py", "/docs/../app.py"]
)
def test_where_nothing_is(narrow, path):
    error(narrow.http.get(path), 404, code="not_found")


@pytest.mark.parametrize("method, path", [("GET", URL), ("PUT", URL), ("DELETE", "/v1/models"), ("POST", "/healthz")])
def test_other_methods(narrow, method, path):
    error(narrow.http.request(method, path), 405, code="method_not_allowed")


@pytest.mark.parametrize("body", [{"prompt": "a", "image": 5}, {"prompt": "a", "face_images": {"a": 1}}])
def test_it_goes_on_afterwards(narrow, body):
    error(narrow.http.post(URL, json=body), 400, next(name for name in body if name != "prompt"))
    assert narrow.http.post(URL, json=SMALL).status_code == 200
