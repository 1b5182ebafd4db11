"""What each parameter of a request does to identity, text and time: one is changed, all others stay as they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from export.onnx.wanted import CALIBRATED, PRECISIONS
from export.paths import onnx_folder
from faceclip_serving.contract.names import DENOISER
from faceclip_serving.contract.placements import ONNX_FILE
from faceclip_serving.contract.variants.variant import Variant

from ..measure.pictures import picture_psnr_db
from ..measure.report import say
from .metrics import auc_error

if TYPE_CHECKING:
    from .judges import Jury, Pictures
    from .makers import Maker, Settings
    from .metrics import Floats
    from .world import Cases, World

SWEEPS: Mapping[str, Sequence[float | int | str]] = {
    "id_guidance_scale": (0.0, 1.0, 2.0, 2.5, 3.0, 4.0),
    "guidance_scale": (1.0, 2.0, 2.5, 3.0, 4.0, 6.0),
    "blend_weight": (0.0, 0.25, 0.5, 0.75, 1.0),
    "num_inference_steps": (5, 10, 20, 40),
    "scheduler": ("EulerDiscreteScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "DDIMScheduler"),
    "guidance_end": (0.25, 0.5, 0.75, 1.0),
    "id_start": (0.0, 0.2, 0.4, 0.6),
}
"""Parameter of the public request -> its values."""
REFERENCES = "references"
"""A sweep over the number of references, 1 to 4, each with its head turned aside; the same cases and noise at every number."""
PRECISION = "precision"
"""A sweep over what the denoiser's graph computes in; everything else stays fp32."""
NAMES = (*SWEEPS, REFERENCES, PRECISION)


def timed(maker: Maker, cases: Cases, settings: Settings, label: str) -> tuple[Pictures, float]:
    """Pictures and the seconds that each took."""
    started = time.perf_counter()
    pictures = maker(cases, settings)
    seconds = (time.perf_counter() - started) / len(cases)
    say(f"{label}: {len(cases)} pictures, {seconds:.2f} s each")
    return pictures, round(seconds, 3)


def sweep(maker: Maker, jury: Jury, cases: Cases, settings: Settings, name: str) -> tuple[list[dict[str, Any]], Pictures]:
    """A point for each value of one parameter, and the pictures [values, cases, ...] they come from."""
    points, rows = [], []
    for value in SWEEPS[name]:
        pictures, seconds = timed(maker, cases, {**settings, name: value}, f"{name} {value}")
        points.append({"value": value, **point(jury, pictures, cases), "seconds_per_picture": seconds})
        rows.append(pictures)
    return points, np.stack(rows)


def references(maker: Maker, jury: Jury, world: World, settings: Settings) -> tuple[list[dict[str, Any]], Pictures]:
    """The same for 1, 2, ... references with turned heads. `gain`: mean of the similarity's difference to one reference, case by
    case, and `gain_error` its standard error."""
    points, rows = [], []
    alone: Floats | None = None
    for count in range(1, len(world.turned.references[0]) + 1):
        cases = replace(world.turned, references=tuple(rows[:count] for rows in world.turned.references))
        pictures, seconds = timed(maker, cases, settings, f"{count} turned references")
        similarity = jury.similarities(pictures, cases)
        alone = similarity if alone is None else alone
        gain, error = mean_and_error(similarity - alone)
        found = {**point(jury, pictures, cases), "gain": gain, "gain_error": error, "seconds_per_picture": seconds}
        points.append({"value": count, **found})
        rows.append(pictures)
    return points, np.stack(rows)


def made_precisions(variant: Variant) -> list[str]:
    """Those that an export makes, and of those that calibration makes what is there."""
    exported = onnx_folder(variant)
    return [*PRECISIONS, *(name for name in CALIBRATED if (exported / name / DENOISER / ONNX_FILE).exists())]


def precisions(
    names: Sequence[str], maker_of: Callable[[str], Maker], jury: Jury, cases: Cases, settings: Settings
) -> tuple[list[dict[str, Any]], Pictures]:
    """The same for precisions of the denoiser. `psnr_db`: mean and least of the pictures against those of the first precision;
    `identity_kept`: similarity and AUC are the first's, or better, within the errors of those."""
    points, rows = [], []
    for name in names:
        pictures, seconds = timed(maker_of(name), cases, settings, f"precision {name}")
        rows.append(pictures)
        near = [picture_psnr_db(a, b) for a, b in zip(pictures, rows[0], strict=True)]
        psnr = {"mean": round(float(np.mean(near)), 2), "least": round(min(near), 2)}
        found = point(jury, pictures, cases)
        points.append({"value": name, **found, "psnr_db": psnr, "seconds_per_picture": seconds})
        points[-1]["identity_kept"] = identity_kept(found, points[0])
    return points, np.stack(rows)


def identity_kept(found: Mapping[str, Any], reference: Mapping[str, Any]) -> bool:
    """Whether neither similarity nor AUC is below the reference's by more than the standard error of the reference's."""
    return all(found[name] >= reference[name] - reference[f"{name}_error"] for name in ("id_similarity", "verification_auc"))


def point(jury: Jury, pictures: Pictures, cases: Cases) -> dict[str, Any]:
    """What a curve shows of one set of pictures."""
    columns = jury.scores(pictures, cases)
    return {
        "id_similarity": columns["id_similarity"],
        "id_similarity_error": mean_and_error(jury.similarities(pictures, cases))[1],
        "text_accuracy": columns["text_accuracy"]["mean"],
        "clip_t": columns["clip_t"],
        "verification_auc": columns["verification_auc"],
        "verification_auc_error": round(
            auc_error(columns["verification_auc"], len(cases), len(cases) * (len(jury.people) - 1)), 4
        ),
        "no_face_rate": columns["no_face_rate"],
    }


def mean_and_error(values: Floats) -> tuple[float, float]:
    """Mean of [n] and its standard error (0 for one value)."""
    error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return round(float(values.mean()), 4), round(float(error), 4)


def spread(cases: Cases, count: int) -> Cases:
    """`count` of the cases, evenly over all people and prompts."""
    return cases.only(np.unique(np.linspace(0, len(cases) - 1, min(count, len(cases))).round().astype(int)).tolist())
