"""Bad input gets a clear error; the server goes on, and good requests beside it get the pictures they would get alone."""

import io
import struct
import threading
import zlib

import numpy as np
import pytest
import tritonclient.grpc as grpc
from PIL import Image
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from benchmarks.measure.example import PHOTO

PHOTO_BYTES = PHOTO.read_bytes()


def png_header(width, height):
    """A PNG that claims a size and holds nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def noise_picture():
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def text(value):
    return np.array([value], object)


GOOD = {
    "prompt": text(b"a portrait"),
    "num_inference_steps": np.array([2], np.int32),
    "seed": np.array([1], np.int64),
    "image_encoding": text(b"binary"),
}

BAD = {
    "not an image": ({"face_images": text(b"hello")}, "face_images"),
    "empty image": ({"face_images": text(b"")}, "face_images"),
    "truncated JPEG": ({"face_images": text(PHOTO_BYTES[: len(PHOTO_BYTES) // 2])}, "face_images"),
    "0x0": ({"face_images": text(png_header(0, 0))}, "face_images"),
    "decompression bomb": ({"face_images": text(png_header(20_000, 20_000))}, "face_images"),
    "no face": ({"face_images": text(noise_picture())}, "no face"),
    "too many faces": ({"face_images": np.array([PHOTO_BYTES] * 5, object)}, "face_images"),
    "empty prompt": ({"prompt": text(b"")}, "prompt"),
    "missing prompt": ({"prompt": None}, "prompt"),
    "non-UTF-8": ({"prompt": text(b"\xff\xfe\xfa")}, "UTF-8"),
    "0 steps": ({"num_inference_steps": np.array([0], np.int32)}, "num_inference_steps"),
    "-1 steps": ({"num_inference_steps": np.array([-1], np.int32)}, "num_inference_steps"),
    "10,000 steps": ({"num_inference_steps": np.array([10_000], np.int32)}, "num_inference_steps"),
    "LCM steps": ({"num_inference_steps": np.array([199], np.int32), "scheduler": text(b"lcm")}, "LCMScheduler"),
    "half a character": ({"scheduler_options": text(b'{"\\ud800": 1}')}, "scheduler_options: expected some of"),
    "deep JSON": ({"scheduler_options": text(b"[" * 9000)}, "scheduler_options: expected a JSON object"),
    "no schedule": (
        {
            "scheduler": text(b"ddim"),
            "scheduler_options": text(b'{"rescale_betas_zero_snr": true, "timestep_spacing": "trailing"}'),
        },
        "scheduler_options: DDIMScheduler with",
    ),
    "guidance NaN": ({"guidance_scale": np.array([np.nan], np.float32)}, "guidance_scale"),
    "odd height": ({"height": np.array([131], np.int32)}, "height"),
    "small width": ({"width": np.array([8], np.int32)}, "width"),
    "large width": ({"width": np.array([8192], np.int32)}, "width"),
    "0 images": ({"num_images_per_prompt": np.array([0], np.int32)}, "num_images_per_prompt"),
    "many images": ({"num_images_per_prompt": np.array([10**6], np.int32)}, "num_images_per_prompt"),
    "unknown scheduler": ({"scheduler": text(b"__init__")}, "scheduler"),
    "negative seed": ({"seed": np.array([-5], np.int64)}, "seed"),
    "seed above 2^63": ({"seed": np.array([2**63], np.uint64)}, "seed"),
    "wrong dtype": ({"height": np.array([128.0], np.float32)}, "height"),
    "wrong shape": ({"height": np.array([128, 128], np.int32)}, "height"),
    "wrong rank": ({"height": np.array([[128]], np.int32)}, "height"),
}


def send(client, arrays, outputs=("images", "seeds")):
    inputs = []
    for name, array in arrays.items():
        if array is not None:
            wire = grpc.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
            wire.set_data_from_numpy(array)
            inputs.append(wire)
    result = client.infer("faceclip", inputs, client_timeout=120)
    return [result.as_numpy(name) for name in outputs]


@pytest.fixture(scope="module")
def client(server):
    with grpc.InferenceServerClient(server.url) as client:
        yield client


@pytest.fixture(scope="module")
def good_picture(client):
    return send(client, GOOD)[0][0]


@pytest.mark.proof
@pytest.mark.parametrize("case", BAD)
def test_it_is_refused_in_words_that_name_it(client, good_picture, case):
    changes, word = BAD[case]
    with pytest.raises(InferenceServerException) as caught:
        send(client, GOOD | changes)
    assert word in caught.value.message()
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert "Traceback" not in caught.value.message()
    assert client.is_server_ready()


def test_many_at_once_beside_good_requests(server, client, good_picture):
    outcomes = {}

    def one(key, arrays):
        with grpc.InferenceServerClient(server.url) as own:
            try:
                outcomes[key] = send(own, arrays)[0][0]
            except InferenceServerException as error:
                outcomes[key] = error.status()

    bad = [GOOD | changes for changes, _ in list(BAD.values())[:10]]
    threads = [threading.Thread(target=one, args=(("bad", i), arrays)) for i, arrays in enumerate(bad)]
    threads += [threading.Thread(target=one, args=(("good", i), GOOD)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert [outcomes["bad", i] for i in range(10)] == ["StatusCode.INVALID_ARGUMENT"] * 10
    expected = np.asarray(Image.open(io.BytesIO(good_picture)), np.float64)
    for i in range(4):
        picture = np.asarray(Image.open(io.BytesIO(outcomes["good", i])), np.float64)
        assert np.mean((picture - expected) ** 2) < 0.65  # 50 dB: a batch may round differently from a single row


def test_the_inner_models_refuse_nonsense_too(server, client):
    wire = grpc.InferInput("image", [1, 4, 8, 8], "FP32")
    wire.set_data_from_numpy(np.zeros((1, 4, 8, 8), np.float32))
    with pytest.raises(InferenceServerException, match="image"):
        client.infer("finish", [wire], parameters=server.keys.parameters)
    job = grpc.InferInput("control", [1], "BYTES")
    job.set_data_from_numpy(text(b"not json"))
    with pytest.raises(InferenceServerException, match="control: "):
        client.infer("sampler", [job], parameters=server.keys.parameters)
    assert len(send(client, GOOD)[0]) == 1
