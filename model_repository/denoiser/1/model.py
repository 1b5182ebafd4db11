"""Runs `denoiser` on ONNX Runtime. A TensorRT placement has model.plan here instead, and needs no Python."""

from faceclip_serving.models.onnx_model import TritonPythonModel

__all__ = ["TritonPythonModel"]
