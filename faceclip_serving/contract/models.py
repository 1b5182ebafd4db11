"""Signatures of every model of a repository, derived from a variant: its components, the Python models around them, the public models."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .components import ALIGNED_FACES, FACE_INDEX, components, ids, latents
from .names import (
    CANCEL,
    DENOISER,
    ENSEMBLE,
    FACE_ENCODER,
    FINISH,
    PREPARE,
    SAMPLER,
    STREAM,
    TEXT_ENCODER,
    UNARY,
    VAE_DECODER,
    VAE_ENCODER,
    VERIFY,
)
from .parameters import PARAMETERS, PREVIEW
from .tensors import DType, Signature, Tensor
from .variants.variant import Variant

JOB = Tensor("job", DType.BYTES, (1,), "JSON: the validated request and what is known of it so far")
CONTROL = Tensor("control", DType.BYTES, (1,), "JSON: an operation other than running a job to its end", optional=True)
REPORT = Tensor("report", DType.BYTES, (1,), "JSON: `job`, with what the sampler measured")

REQUEST_ID = Tensor("request_id", DType.BYTES, (1,), "Triton's own `id` of the request that is to end")
PICTURE = Tensor("picture", DType.BYTES, (1,), "a PNG, JPEG or WebP file, or base64 of it", optional=True)
VERIFIED = Tensor(
    "report",
    DType.BYTES,
    (1,),
    "JSON: credentials, label and mark of the picture; without one: `marks` and `checks` that are on, and rules",
)

ENDED = Tensor("ended", DType.BOOL, (1,), "whether there was such a request")

PROGRESS = Tensor("progress", DType.BYTES, (1,), "JSON: step, total, timestep", optional=True)
PREVIEW_IMAGE = Tensor("preview_image", DType.BYTES, (1,), "JPEG of the first picture, a latent cell per pixel", optional=True)


@dataclass(frozen=True)
class Step:
    """One step of the ensemble: a model, and for each of its tensors the ensemble tensor it is bound to."""

    model: str
    inputs: dict[str, str]
    outputs: dict[str, str]


def models(variant: Variant) -> dict[str, Signature]:
    """Every model that a repository may have, in the order of the flow. Which components are models of their own, a placement says."""
    nets = components(variant)
    public = tuple(parameter.tensor for parameter in PARAMETERS)
    prepare = Signature(
        PREPARE,
        public,
        (ALIGNED_FACES, FACE_INDEX, *ids(variant), JOB),
        "checks the request, finds and aligns faces, tokenises",
    )
    sampler = Signature(
        SAMPLER,
        tuple(replace(tensor, optional=True) for tensor in (*prepare.outputs, CONTROL)),
        (
            *(replace(tensor, optional=True) for tensor in nets[VAE_DECODER].outputs),
            replace(latents(variant, "one"), optional=True, doc="of the first picture, after a step that is followed"),
            REPORT,
        ),
        "encodes, runs the denoiser over the schedule, decodes; with `control`, see faceclip_serving/sampling/service.py",
    )
    outputs = (
        Tensor("images", DType.BYTES, ("images",), "encoded pictures, in `output_format`"),
        Tensor("seeds", DType.INT64, ("images",), "seed of each picture"),
        Tensor("details", DType.BYTES, (1,), "JSON: timings_s, faces, warnings, versions and the parameters obeyed"),
    )
    finish = Signature(FINISH, (*nets[VAE_DECODER].outputs, REPORT), outputs, "encodes pictures and the report")
    unary = Signature(UNARY, public, outputs, "photo and prompt -> pictures")
    ensemble = replace(unary, name=ENSEMBLE, doc="the same, for `faceclip` alone: its steps, with the tensors between them")
    stream = Signature(
        STREAM,
        (*public, PREVIEW.tensor),
        (PROGRESS, PREVIEW_IMAGE, *(replace(tensor, optional=True) for tensor in outputs)),
        "the same, with a response per step before the last one, and cancellation",
    )
    encoders = (nets[FACE_ENCODER], nets[TEXT_ENCODER], nets[VAE_ENCODER])
    flow = (prepare, *encoders, sampler, nets[DENOISER], nets[VAE_DECODER], finish)
    cancel = Signature(CANCEL, (REQUEST_ID,), (ENDED,), "ends the requests of an id, for whoever cannot close the call itself")
    verify = Signature(VERIFY, (PICTURE,), (VERIFIED,), "which marks a picture bears; keeps nothing, fetches nothing")
    return {model.name: model for model in (unary, stream, cancel, verify, ensemble, *flow)}


def ensemble_steps(variant: Variant) -> tuple[Step, ...]:
    """The data flow of the public ensemble: every tensor keeps its name from the model that makes it to those that need it."""
    signatures = models(variant)
    order = (PREPARE, SAMPLER, FINISH)
    needed = {tensor.name for name in (*order, ENSEMBLE) for tensor in signatures[name].inputs if tensor.name != CONTROL.name}
    needed |= {tensor.name for tensor in signatures[ENSEMBLE].outputs}
    return tuple(
        Step(
            name,
            {tensor.name: tensor.name for tensor in signatures[name].inputs if tensor.name in needed},
            {tensor.name: tensor.name for tensor in signatures[name].outputs if tensor.name in needed},
        )
        for name in order
    )
