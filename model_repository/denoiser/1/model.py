"""Runs `denoiser` on ONNX Runtime, or its plan on TensorRT for RTX. Triton's own backends have the artifact here alone, and need no Python."""

from faceclip_serving.models.component_model import TritonPythonModel

__all__ = ["TritonPythonModel"]
