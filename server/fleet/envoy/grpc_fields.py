"""As much of Triton's protocol as a proxy must know to see which model a call names: methods, and one field of their requests.

Other fields are unknown to it, and are passed on as they are. Source: `grpc_service.proto` of KServe v2.
"""

from __future__ import annotations

import base64

SERVICE = "inference.GRPCInferenceService"
OF_A_MODEL = {
    "ModelInfer": "model_name",
    "ModelConfig": "name",
    "ModelMetadata": "name",
    "ModelReady": "name",
}
"""Method that asks for a model -> the field that names it; in every one of these requests it has the number 1 and is text."""
OF_THE_SERVER = ("ServerLive", "ServerReady", "ServerMetadata", "RepositoryIndex")
"""Methods that say what a server is and change nothing."""
STREAM = "ModelStreamInfer"
"""Method of which each message names a model, in the field of that number too. Envoy's reader of fields sees the first message alone, and
loses the start of the next where both come in one piece: `streams.lua` reads these."""


def descriptors() -> str:
    """A serialised FileDescriptorSet of them, in base64."""
    from google.protobuf import descriptor_pb2 as pb

    file = pb.FileDescriptorProto(name="faceclip_fields.proto", package=SERVICE.partition(".")[0], syntax="proto3")
    for method, name in OF_A_MODEL.items():
        request = file.message_type.add(name=f"{method}Request")
        kind = pb.FieldDescriptorProto
        request.field.add(name=name, json_name=name, number=1, type=kind.TYPE_STRING, label=kind.LABEL_OPTIONAL)
    file.message_type.add(name="Answer")
    service = file.service.add(name=SERVICE.partition(".")[2])
    for method in OF_A_MODEL:
        service.method.add(name=method, input_type=f".{file.package}.{method}Request", output_type=f".{file.package}.Answer")
    return base64.b64encode(pb.FileDescriptorSet(file=[file]).SerializeToString(deterministic=True)).decode()
