"""The whole pipeline in this process with torch's networks, so that nothing is exported."""

from functools import partial

from benchmarks.measure.inprocess import Pipeline, no_marks
from export.checkpoint.tokenizers import write_tokenizers
from export.networks.components import build
from export.onnx.parity import torch_run
from export.paths import ROOT
from faceclip_serving.contract.components import components
from faceclip_serving.contract.digest import package_digest
from faceclip_serving.contract.names import FACE_ENCODER
from faceclip_serving.contract.placements import CPU
from faceclip_serving.face.detectors import YuNet
from faceclip_serving.models.finish import finish
from faceclip_serving.models.prepare import prepare
from faceclip_serving.models.prompts import load_tokenizer
from faceclip_serving.sampling.networks import of_crops


def pipeline_of(variant, folder, weights=None):
    """`weights`: a folder of them; None: seeded ones. Tokenizers are written to `folder`."""
    digest = package_digest(ROOT / "faceclip_serving")
    write_tokenizers(variant, weights, folder)
    tokenizers = [load_tokenizer(folder / tokens.tokenizer) for tokens in variant.tokens]
    stages = {
        "prepare": partial(prepare, variant, tokenizers, YuNet(), digest),
        "finish": partial(finish, variant, CPU, digest, no_marks(CPU)),
        **{name: torch_run(build(variant, name, weights), signature) for name, signature in components(variant).items()},
    }
    return Pipeline(variant, 8, {**stages, FACE_ENCODER: of_crops(stages[FACE_ENCODER])})
