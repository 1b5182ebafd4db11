"""Runs `text_encoder` on ONNX Runtime, or its plan on TensorRT for RTX. Triton's own backends need the artifact alone, no Python."""

from faceclip_serving.models.component_model import TritonPythonModel

__all__ = ["TritonPythonModel"]
