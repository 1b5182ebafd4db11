"""The client of a FaceCLIP server: photo and prompt in, pictures of the same person out.

from faceclip import FaceCLIPPipeline

pipe = FaceCLIPPipeline.from_pretrained("localhost:8001")
pipe("portrait of an astronaut", face_image="me.jpg").images[0].save("astronaut.png")
"""

from __future__ import annotations

from .aio import AsyncFaceCLIPPipeline
from .errors import (
    DeadlineExceededError,
    FaceCLIPError,
    InvalidRequestError,
    ModelNotFoundError,
    ProtocolError,
    RefusedError,
    ServerBusyError,
    ServerError,
    ServerUnavailableError,
)
from .group import Person
from .grpc_transport import AsyncGrpcTransport, GrpcTransport
from .marks.verify import Report
from .people import Face, Identity
from .pipeline import FaceCLIPPipeline
from .result import FaceCLIPOutput, Progress, Provenance
from .served import ServedModel
from .status import ServerStatus, server_status
from .transport import AsyncTransport, ModelConfig, ModelState, ServerState, Transport
from .verify import verify_picture

__version__ = "0.1.0"

__all__ = [
    "AsyncFaceCLIPPipeline",
    "AsyncGrpcTransport",
    "AsyncTransport",
    "DeadlineExceededError",
    "Face",
    "FaceCLIPError",
    "FaceCLIPOutput",
    "FaceCLIPPipeline",
    "GrpcTransport",
    "Identity",
    "InvalidRequestError",
    "ModelConfig",
    "ModelNotFoundError",
    "ModelState",
    "Person",
    "Progress",
    "ProtocolError",
    "Provenance",
    "RefusedError",
    "Report",
    "ServedModel",
    "ServerBusyError",
    "ServerError",
    "ServerState",
    "ServerStatus",
    "ServerUnavailableError",
    "Transport",
    "server_status",
    "verify_picture",
]
