"""Names of the components and of the models of a repository; what each takes and gives, `components` and `models` say."""

from __future__ import annotations

FACE_ENCODER, TEXT_ENCODER, VAE_ENCODER = "face_encoder", "text_encoder", "vae_encoder"
DENOISER, VAE_DECODER = "denoiser", "vae_decoder"
PREPARE, SAMPLER, FINISH = "prepare", "sampler", "finish"
UNARY, STREAM, CANCEL, VERIFY, FACES = "faceclip", "faceclip_stream", "faceclip_cancel", "faceclip_verify", "faceclip_faces"
PUBLIC = (UNARY, STREAM, CANCEL, VERIFY, FACES)
"""Models that anybody may call; see `callers`."""
ENSEMBLE = "ensemble"
"""The flow of a request from photographs to pictures, as Triton's ensemble; `UNARY` runs it."""
DEFAULT_DEPLOYMENT = UNARY
ENCODERS = (FACE_ENCODER, TEXT_ENCODER)
"""Components whose rows depend on what a caller may send again: their results may be remembered."""
COMPONENTS = (FACE_ENCODER, TEXT_ENCODER, VAE_ENCODER, DENOISER, VAE_DECODER)
STATISTICS_FILE = "face_statistics.safetensors"
"""How learnt faces are spread: beside the weights, the exported face encoder, and the models that see features of faces. Where there is
none, nobody is warned of a face unlike all of them."""
OCCASIONAL = (VAE_ENCODER,)
"""Components that only some requests need: where the sampler's process runs them on the CPU, memory holds them only while such come."""


def model_name(role: str, deployment: str = DEFAULT_DEPLOYMENT) -> str:
    """What a model is called on a server that offers `deployment`: several of them, each with all roles, live side by side.

    The public models bear the deployment's name in place of `faceclip`, inner ones have it in front; for the default one names
    are roles: `sampler` and `faceclip_stream`, or `flux_sampler` and `flux_stream`.
    """
    if deployment == DEFAULT_DEPLOYMENT:
        return role
    return deployment + role.removeprefix(UNARY) if role in PUBLIC else f"{deployment}_{role}"
