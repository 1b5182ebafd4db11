"""Signatures of every model of a repository, derived from a variant: its components, the Python models around them, the public models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from .components import FACE_INDEX, components, ids, latents
from .names import (
    CANCEL,
    DENOISER,
    ENSEMBLE,
    FACE_ENCODER,
    FACES,
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
from .parameters import OF_FACES, PARAMETERS, PREVIEW
from .tensors import DType, Signature, Tensor
from .variants.architectures import FACE_SIZE
from .variants.variant import Variant

JOB = Tensor("job", DType.BYTES, (1,), "JSON: the validated request and what is known of it so far")
CONTROL = Tensor("control", DType.BYTES, (1,), "JSON: an operation other than running a job to its end", optional=True)
REPORT = Tensor("report", DType.BYTES, (1,), "JSON: `job`, with what the sampler measured")

FACE_CROPS = Tensor(
    "face_crops",
    DType.UINT8,
    ("faces", FACE_SIZE, FACE_SIZE, 3),
    "aligned faces, RGB; `aligned_faces` are these / 255, in planes and four times the bytes; zeros: no face",
)

REQUEST_ID = Tensor("request_id", DType.BYTES, (1,), "Triton's own `id` of the request that is to end")
PICTURE = Tensor("picture", DType.BYTES, (1,), "a PNG, JPEG or WebP file, or base64 of it", optional=True)
VERIFIED = Tensor(
    "report",
    DType.BYTES,
    (1,),
    "JSON: credentials, label and mark of the picture; without one: `marks` and `checks` that are on, and rules",
)

PURPOSE = Tensor("purpose", DType.BYTES, (1,), "why photographs are prepared, of `Purpose`; left out: to draw", optional=True)

SUBJECT = Tensor("subject", DType.BYTES, (1,), "JSON: what an identity holds besides the features of its face", optional=True)
SEALED = Tensor("identity", DType.BYTES, (1,), "a sealed identity, in `image_encoding`", optional=True)

ENDED = Tensor("ended", DType.BOOL, (1,), "whether there was such a request")

LATENT_MASK = Tensor(
    "latent_mask",
    DType.FP32,
    ("images", 1, "latent_height", "latent_width"),
    "1 where the picture is drawn anew, else 0",
    optional=True,
)
ORIGINAL = Tensor(
    "original",
    DType.UINT8,
    ("original_height", "original_width", 3),
    "the picture that came, upright, RGB; with a mask",
    optional=True,
)
SEAM = Tensor(
    "seam",
    DType.UINT8,
    ("original_height", "original_width"),
    "share of the drawn picture in each pixel, of 255",
    optional=True,
)

SHARES = Tensor(
    "shares",
    DType.FP32,
    ("people", 1, "latent_height", "latent_width"),
    "of several people: how much of each latent cell is each one's",
    optional=True,
)

PROGRESS = Tensor("progress", DType.BYTES, (1,), "JSON: step, total, timestep", optional=True)
PREVIEW_IMAGE = Tensor("preview_image", DType.BYTES, (1,), "JPEG of the first picture, a latent cell per pixel", optional=True)


class Purpose(Enum):
    """Why photographs are prepared, where nothing is drawn."""

    LIST = "list"
    """To say which faces they show."""
    IDENTITY = "identity"
    """To seal the features of the chosen ones."""


@dataclass(frozen=True)
class Step:
    """One step of the ensemble: a model, and for each of its tensors the ensemble tensor it is bound to."""

    model: str
    inputs: dict[str, str]
    outputs: dict[str, str]


RECALLED = "recalled_"
"""How features are called that come from an identity, and not from the face encoder."""


def recalled(variant: Variant) -> tuple[Tensor, ...]:
    """The features of a face, as an identity brings them."""
    return tuple(
        replace(
            tensor,
            name=RECALLED + tensor.name,
            axes=("identities", *tensor.axes[1:]),
            doc=f"{tensor.doc}; of an identity",
            optional=True,
        )
        for tensor in variant.face_features
    )


def models(variant: Variant) -> dict[str, Signature]:
    """Every model that a repository may have, in the order of the flow. Which components are models of their own, a placement says."""
    nets = components(variant)
    public = tuple(parameter.tensor for parameter in PARAMETERS)
    to_draw = (*(replace(tensor, optional=True) for tensor in nets[VAE_ENCODER].inputs), LATENT_MASK, SHARES)
    features = tuple(replace(tensor, optional=True) for tensor in variant.face_features)
    prepare = Signature(
        PREPARE,
        (*public, PURPOSE),
        (
            *(replace(tensor, optional=True) for tensor in (FACE_CROPS, FACE_INDEX, *ids(variant))),
            *to_draw,
            ORIGINAL,
            SEAM,
            *recalled(variant),
            SUBJECT,
            JOB,
        ),
        "checks the request, finds and aligns faces, reads the picture to change, tokenises",
    )
    sampler = Signature(
        SAMPLER,
        tuple(
            replace(tensor, optional=True)
            for tensor in (FACE_CROPS, FACE_INDEX, *ids(variant), *to_draw, *recalled(variant), JOB, CONTROL)
        ),
        (
            *(replace(tensor, optional=True) for tensor in nets[VAE_DECODER].outputs),
            replace(latents(variant, "one"), optional=True, doc="of the first picture, after a step that is followed"),
            *features,
            REPORT,
        ),
        "encodes, runs the denoiser over the schedule, decodes; with `control`, see faceclip_serving/sampling/service.py",
    )
    outputs = (
        Tensor("images", DType.BYTES, ("images",), "encoded pictures, in `output_format`"),
        Tensor("seeds", DType.INT64, ("images",), "seed of each picture"),
        Tensor("details", DType.BYTES, (1,), "JSON: timings_s, faces, warnings, versions and the parameters obeyed"),
    )
    finish = Signature(
        FINISH,
        (*nets[VAE_DECODER].outputs, ORIGINAL, SEAM, REPORT),
        outputs,
        "puts what was drawn back into the picture that came, encodes pictures and the report",
    )
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
    faces = Signature(
        FACES,
        tuple(parameter.tensor for parameter in OF_FACES),
        (replace(outputs[2], doc="JSON: timings_s, faces, warnings"), SEALED),
        "which faces photographs show, and, where wanted, a portable identity; draws nothing",
    )
    return {model.name: model for model in (unary, stream, cancel, verify, faces, ensemble, *flow)}


def ensemble_steps(variant: Variant) -> tuple[Step, ...]:
    """The data flow of the public ensemble: a tensor keeps its name from the model that makes it to those that need it.

    Where a model makes one that is called like an input of the ensemble, such as `image`, its own name goes before it.
    """
    signatures = models(variant)
    order = (PREPARE, SAMPLER, FINISH)
    needed = {tensor.name for name in (*order, ENSEMBLE) for tensor in signatures[name].inputs if tensor.name != CONTROL.name}
    needed |= {tensor.name for tensor in signatures[ENSEMBLE].outputs}
    public = {tensor.name for tensor in signatures[ENSEMBLE].inputs}
    known = {name: name for name in public}
    steps = []
    for model in order:
        inputs = {tensor.name: known[tensor.name] for tensor in signatures[model].inputs if tensor.name in known}
        made = [tensor.name for tensor in signatures[model].outputs if tensor.name in needed]
        outputs = {name: f"{model}_{name}" if name in public else name for name in made}
        known |= outputs
        steps.append(Step(model, inputs, outputs))
    return tuple(steps)
