"""The recogniser for `[listed] faces` of a server's policy: dlib's ResNet of 29 convolutions (CC0), which knows nothing of FaceCLIP.

Its weights are those of npm's @vladmandic/face-api 1.7.15 (MIT), fetched once, checked by their digest, and written as one ONNX file of
22 MB.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import sys
import tarfile
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from faceclip_serving.contract.errors import UserError

from ..outputs import replacing, require_file

URL = "https://registry.npmjs.org/@vladmandic/face-api/-/face-api-1.7.15.tgz"
SHA512 = "WDMmK3CfNLo8jylWqMoQgf4nIst3M0fzx1dnac96wv/dvMTN4DxC/Pq1DGtduDk1lktCamQ3MIDXFnvrdHTXDw=="
"""As the registry tells it."""
_MODEL = "package/model/face_recognition_model"
MAX_BYTES = 2**26
SIDE = 150
_MEAN = (122.782, 117.001, 104.298)
"""Of the red, green and blue values of its training."""
LAYERS = (
    ("conv32_1", False), ("conv32_2", False), ("conv32_3", False),
    ("conv64_down", True), ("conv64_1", False), ("conv64_2", False), ("conv64_3", False),
    ("conv128_down", True), ("conv128_1", False), ("conv128_2", False),
    ("conv256_down", True), ("conv256_1", False), ("conv256_2", False), ("conv256_down_out", True),
)  # fmt: skip
"""Residual layers in their order, and whether they halve the picture."""
Weights = Mapping[str, NDArray[np.float32]]


class RecogniserError(UserError):
    """The weights cannot be had."""


def fetched(url: str = URL) -> bytes:
    """The package, whole and unchanged. Raises `RecogniserError`."""
    try:
        with urllib.request.urlopen(url, timeout=60) as response:
            content: bytes = response.read(MAX_BYTES)
    except OSError as error:
        raise RecogniserError(f"{url}: {error}; fetch the file elsewhere and name it by --package") from None
    return content


def weights_of(package: bytes) -> Weights:
    """Name -> array, from npm's package. Raises `RecogniserError` where it is another one."""
    found = base64.b64encode(hashlib.sha512(package).digest()).decode()
    if found != SHA512:
        raise RecogniserError(f"expected @vladmandic/face-api 1.7.15, with sha512 {SHA512[:16]}..., got {found[:16]}...")
    with tarfile.open(fileobj=io.BytesIO(package)) as archive:
        manifest, data = (_file(archive, _MODEL + ending) for ending in ("-weights_manifest.json", ".bin"))
    return dict(_unpacked(json.loads(manifest)[0]["weights"], data))


def _file(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None  # the package's digest is known
    return file.read()


def _unpacked(entries: list[dict[str, Any]], data: bytes) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Arrays lie one behind the other; most are quantised to bytes, with a scale and a least value."""
    at = 0
    for entry in entries:
        packing = entry.get("quantization")
        kind = np.dtype(packing["dtype"] if packing else entry["dtype"])
        values = np.frombuffer(data, kind, int(np.prod(entry["shape"])), at).reshape(entry["shape"])
        at += values.nbytes
        yield entry["name"], np.asarray(values * packing["scale"] + packing["min"] if packing else values, np.float32)
    if at != len(data):
        raise RecogniserError(f"expected {at} bytes of weights, got {len(data)}")


class _Graph:
    """Nodes in their order; each call adds one and names its output."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, array: NDArray[Any]) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def convolved(self, x: str, name: str, stride: int) -> str:
        """A convolution with the scale that follows it folded in. One that halves takes no border."""
        filters, bias = self._weights[f"{name}/conv/filters"], self._weights[f"{name}/conv/bias"]
        scale, shift = self._weights[f"{name}/scale/weights"], self._weights[f"{name}/scale/biases"]
        kernel = self.constant(np.ascontiguousarray((filters * scale).transpose(3, 2, 0, 1)))
        border = 0 if stride == 2 else filters.shape[0] // 2
        return self.node("Conv", x, kernel, self.constant(bias * scale + shift), strides=[stride] * 2, pads=[border] * 4)

    def padded(self, x: str, channels: int, side: int) -> str:
        """More channels, rows and columns, of zeros, at the end."""
        if not channels and not side:
            return x
        return self.node("Pad", x, self.constant(np.array([0, 0, 0, 0, 0, channels, side, side], np.int64)))


def graph_of(weights: Weights) -> onnx.ModelProto:
    """`face` [n, 3, 150, 150], RGB in 0..255, aligned as dlib does it -> `descriptor` [n, 128]. Distances are Euclidean."""
    graph = _Graph(weights)
    mean = graph.constant(np.array(_MEAN, np.float32).reshape(1, 3, 1, 1))
    x = graph.node("Div", graph.node("Sub", "face", mean), graph.constant(np.array(255, np.float32)))
    x = graph.node("Relu", graph.convolved(x, "conv32_down", 2))
    x = graph.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2])
    side, channels = ((SIDE - 7) // 2 + 1 - 3) // 2 + 1, 32
    for name, halves in LAYERS:
        y = graph.node("Relu", graph.convolved(x, f"{name}/conv1", 2 if halves else 1))
        y = graph.convolved(y, f"{name}/conv2", 1)
        if halves:
            wider = weights[f"{name}/conv2/conv/filters"].shape[-1] - channels
            small, side = (side - 3) // 2 + 1, side // 2
            x = graph.node("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
            x, y, channels = graph.padded(x, wider, 0), graph.padded(y, 0, side - small), channels + wider
        x = graph.node("Relu", graph.node("Add", x, y))
    x = graph.node("Flatten", graph.node("GlobalAveragePool", x))
    graph.node("MatMul", x, graph.constant(weights["fc"]), output="descriptor")
    whole = helper.make_graph(
        graph.nodes,
        "face_recogniser",
        [helper.make_tensor_value_info("face", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("descriptor", TensorProto.FLOAT, ["n", 128])],
        graph.constants,
    )
    model = helper.make_model(whole, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--to", type=Path, default=Path("recogniser.onnx"), metavar="FILE", help="default: %(default)s")
    parser.add_argument("--package", type=Path, metavar="FILE", help=f"the package, fetched elsewhere (default: {URL})")


def run(args: argparse.Namespace) -> int:
    require_file(args.to)
    try:
        package = args.package.read_bytes() if args.package else fetched()
    except OSError as error:
        raise RecogniserError(f"package: '{args.package}' cannot be read ({error.strerror})") from None
    model = graph_of(weights_of(package))
    with replacing(args.to) as partial:
        partial.write_bytes(model.SerializeToString())
    print(f"wrote {args.to}; name it in a policy: [listed] recogniser", file=sys.stderr)
    print(json.dumps({"recogniser": str(args.to)}))
    return 0
