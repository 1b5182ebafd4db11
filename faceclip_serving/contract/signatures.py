"""Signatures of every component and of every model of the repository, derived from a variant.

`components` are the neural networks that `export` turns into ONNX: pure functions of tensors, the same whatever runtime runs
them. `models` adds the Python models around them, the ensemble and the public models.

How rows and faces meet: a request brings `faces` aligned crops and needs `rows` encodings, one per (face, prompt) pair. Each
row names its face by `face_index`; -1 means "no face", which the published network defines as an all-zero image. The features
of that image are constants of the exported text encoder, so a face-free row costs no face encoder run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .architectures import FACE_SIZE
from .parameters import PARAMETERS, PREVIEW
from .tensors import Bounds, DType, Range, Signature, Tensor
from .variant import Variant

FACE_ENCODER, TEXT_ENCODER, DENOISER, VAE_DECODER = "face_encoder", "text_encoder", "denoiser", "vae_decoder"
PREPARE, SAMPLER, FINISH = "prepare", "sampler", "finish"
UNARY, STREAM, CANCEL, VERIFY = "faceclip", "faceclip_stream", "faceclip_cancel", "faceclip_verify"
PUBLIC = (UNARY, STREAM, CANCEL, VERIFY)
"""Models that anybody may call; see `callers`."""
ENSEMBLE = "ensemble"
"""The flow of a request from photographs to pictures, as Triton's ensemble; `UNARY` runs it."""
DEFAULT_DEPLOYMENT = UNARY
ENCODERS = (FACE_ENCODER, TEXT_ENCODER)
"""Components whose rows depend on what a caller may send again: their results may be remembered."""
COMPONENTS = (FACE_ENCODER, TEXT_ENCODER, DENOISER, VAE_DECODER)


def model_name(role: str, deployment: str = DEFAULT_DEPLOYMENT) -> str:
    """What a model is called on a server that offers `deployment`: several of them, each with all roles, live side by side.

    The public models bear the deployment's name in place of `faceclip`, inner ones have it in front; for the default one names
    are roles: `sampler` and `faceclip_stream`, or `flux_sampler` and `flux_stream`.
    """
    if deployment == DEFAULT_DEPLOYMENT:
        return role
    return deployment + role.removeprefix(UNARY) if role in PUBLIC else f"{deployment}_{role}"


ALIGNED_FACES = Tensor(
    "aligned_faces", DType.FP32, ("faces", 3, FACE_SIZE, FACE_SIZE), "aligned RGB crop in [0, 1]; zeros: no face"
)
FACE_INDEX = Tensor("face_index", DType.INT64, ("rows", 1), "row of aligned_faces that this prompt belongs to; -1: no face")
JOB = Tensor("job", DType.BYTES, (1,), "JSON: the validated request and what is known of it so far")
CONTROL = Tensor("control", DType.BYTES, (1,), "JSON: an operation other than running a job to its end", optional=True)
REPORT = Tensor("report", DType.BYTES, (1,), "JSON: `job`, with what the sampler measured")

REQUEST_ID = Tensor("request_id", DType.BYTES, (1,), "Triton's own `id` of the request that is to end")
PICTURE = Tensor("picture", DType.BYTES, (1,), "a PNG, JPEG or WebP file, or base64 of it", optional=True)
VERIFIED = Tensor(
    "report", DType.BYTES, (1,), "JSON: credentials, label and mark of the picture; without one: `marks` that are on"
)

ENDED = Tensor("ended", DType.BOOL, (1,), "whether there was such a request")

PROGRESS = Tensor("progress", DType.BYTES, (1,), "JSON: step, total, timestep", optional=True)
PREVIEW_IMAGE = Tensor("preview_image", DType.BYTES, (1,), "JPEG of the first picture, a latent cell per pixel", optional=True)


def latents(variant: Variant, batch_axis: str, name: str = "latents") -> Tensor:
    """The latent tensor, with the given name for its first axis."""
    axes = (batch_axis, variant.latent_channels, "latent_height", "latent_width")
    return Tensor(name, DType.FP32, axes, "VAE latents, scaled as the denoiser sees them")


def ids(variant: Variant) -> tuple[Tensor, ...]:
    """Token ids, one tensor per tokenizer of the variant."""
    return tuple(Tensor(t.input, DType.INT64, ("rows", t.max_tokens), "token ids, padded") for t in variant.tokens)


def components(variant: Variant) -> dict[str, Signature]:
    """The four networks of a variant."""
    return {
        FACE_ENCODER: Signature(FACE_ENCODER, (ALIGNED_FACES,), variant.face_features, "aligned face -> identity features"),
        TEXT_ENCODER: Signature(
            TEXT_ENCODER,
            (*ids(variant), FACE_INDEX, *variant.fused_features),
            variant.conditioning,
            "prompt tokens fused with the features of a face",
        ),
        DENOISER: Signature(
            DENOISER,
            (
                latents(variant, "rows"),
                Tensor("timestep", DType.FP32, ("rows", 1), "diffusion time of each row, in [0, 1000]"),
                *variant.conditioning,
                *variant.extras,
            ),
            (replace(latents(variant, "rows", "noise_pred"), doc="predicted noise (or velocity)"),),
            "one denoising step for rows that may belong to different requests",
        ),
        VAE_DECODER: Signature(
            VAE_DECODER,
            (latents(variant, "images"),),
            (Tensor("image", DType.FP32, ("images", 3, "height", "width"), "RGB in [0, 1]"),),
            "latents -> picture; undoes the latent scaling itself",
        ),
    }


MAX_FACE_FREE_ROWS = 3
"""Encodings of one request that show no face: negative prompt, prompt alone, prompt with the face prefix."""


def bounds(variant: Variant, denoiser_rows: int, vae_tile: int = 0) -> dict[str, Bounds]:
    """Per component, the sizes its named axes may take.

    `denoiser_rows`: largest batch of one denoiser call. `vae_tile`: latent cells per side that the decoder sees at most, one
    picture at a time; 0: whole pictures.
    """
    faces = Range(1, 1, variant.limits.faces)
    rows = Range(1, 2, variant.limits.faces + MAX_FACE_FREE_ROWS)
    side = variant.latent_range
    grid = {"latent_height": side, "latent_width": side}
    images, decoded = Range(1, 1, variant.limits.num_images_per_prompt), side
    if vae_tile:
        images, decoded = Range(1, 1, 1), _within_tile(side, vae_tile, variant.latent_multiple)
    return {
        FACE_ENCODER: {"faces": faces},
        TEXT_ENCODER: {"faces": faces, "rows": rows},
        DENOISER: {"rows": Range(1, min(2, denoiser_rows), denoiser_rows), **grid},
        VAE_DECODER: {"images": images, "latent_height": decoded, "latent_width": decoded},
    }


def usual_sizes(variant: Variant, limits: Bounds) -> list[dict[str, int]]:
    """Named axes of the calls that a server gets most: of the default picture, one at a time and as many as go into a call."""
    picture = {"latent_height": variant.defaults.height, "latent_width": variant.defaults.width}
    cells = {axis: pixels // variant.latent_scale for axis, pixels in picture.items()}
    one = {axis: min(cells.get(axis, limit.opt), limit.max) for axis, limit in limits.items()}
    most = {axis: size if axis in cells else limits[axis].max for axis, size in one.items()}
    return [one] if one == most else [one, most]


def _within_tile(side: Range, tile: int, multiple: int) -> Range:
    if tile < 2 or tile % multiple:
        raise ValueError(f"vae_tile: expected a multiple of {multiple} latent cells, at least 2, or 0; got {tile}")
    return Range(*(min(cells, tile) for cells in side))


def multiples(variant: Variant) -> dict[str, int]:
    """Named axes whose sizes come in multiples, and of what."""
    return dict.fromkeys(("latent_height", "latent_width"), variant.latent_multiple)


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
    flow = (prepare, nets[FACE_ENCODER], nets[TEXT_ENCODER], sampler, nets[DENOISER], nets[VAE_DECODER], finish)
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
