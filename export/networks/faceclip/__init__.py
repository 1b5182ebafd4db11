"""FaceCLIP's networks as torch modules that load the published checkpoint by name and export to ONNX."""

from __future__ import annotations

from .encoder import FaceCLIPEncoder, face_encoders_equal

__all__ = ["FaceCLIPEncoder", "face_encoders_equal"]
