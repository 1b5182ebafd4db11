"""The recogniser's graph against the same layers in torch, and packages that are no such package."""

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F

from export.__main__ import main
from export.recogniser.command import LAYERS, RecogniserError, graph_of, weights_of

from .recogniser import random_weights


def in_torch(weights, face):
    """As @vladmandic/face-api runs it."""

    def convolved(x, name, halves):
        filters = torch.from_numpy(weights[f"{name}/conv/filters"]).permute(3, 2, 0, 1)
        x = F.conv2d(x, filters, torch.from_numpy(weights[f"{name}/conv/bias"]), 2 if halves else 1, 0 if halves else 1)
        scale, shift = (torch.from_numpy(weights[f"{name}/scale/{each}"])[:, None, None] for each in ("weights", "biases"))
        return x * scale + shift

    x = (torch.from_numpy(face) - torch.tensor([122.782, 117.001, 104.298])[:, None, None]) / 255
    x = F.max_pool2d(F.relu(convolved(x, "conv32_down", True)), 3, 2)
    for name, halves in LAYERS:
        y = convolved(F.relu(convolved(x, f"{name}/conv1", halves)), f"{name}/conv2", False)
        if halves:
            x = F.avg_pool2d(x, 2, 2)
            y = F.pad(y, (0, x.shape[3] - y.shape[3], 0, x.shape[2] - y.shape[2]))
            x = torch.cat([x, torch.zeros(len(x), y.shape[1] - x.shape[1], *x.shape[2:])], 1)
        x = F.relu(x + y)
    return (x.mean((2, 3)) @ torch.from_numpy(weights["fc"])).numpy()


def test_the_graph_is_the_network():
    weights = random_weights()
    session = onnxruntime.InferenceSession(graph_of(weights).SerializeToString(), providers=["CPUExecutionProvider"])
    faces = np.random.default_rng(1).uniform(0, 255, (2, 3, 150, 150)).astype(np.float32)
    (found,) = session.run(None, {"face": faces})
    assert found.shape == (2, 128) and np.abs(found).max() > 1e-3
    np.testing.assert_allclose(found, in_torch(weights, faces), rtol=1e-3, atol=1e-3 * np.abs(found).max())


def test_another_package_is_refused(tmp_path, capsys):
    with pytest.raises(RecogniserError, match=r"expected @vladmandic/face-api 1\.7\.15, with sha512"):
        weights_of(b"something else")
    package = tmp_path / "package.tgz"
    for arrange in (lambda: None, lambda: package.write_bytes(b"x")):
        arrange()
        assert main(["recogniser", "--package", str(package), "--to", str(tmp_path / "out.onnx")]) == 1
        assert "error: " in capsys.readouterr().err and not (tmp_path / "out.onnx").exists()
