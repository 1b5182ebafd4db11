"""Every engine against ONNX Runtime on the same inputs, and a picture by both. How plans are compared is in `agreement`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faceclip_serving.contract.components import SIDES, components
from faceclip_serving.contract.names import DENOISER
from faceclip_serving.contract.placements import ONNX_FILE, PLAN_FILE
from faceclip_serving.contract.tensors import Array
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.contract.variants.variant import Variant
from faceclip_serving.models.trt_component import TrtComponent

from ..onnx.draw import SMALLEST_PSNR_DB, draw, psnr_db
from .agreement import Load, verify_file
from .build import add_selection, all_folders, purpose_of, selected, this_machine
from .errors import EngineError
from .record import Purpose, check_plan, require_onnx
from .shapes import bounds_from

if TYPE_CHECKING:
    from ..onnx.parity import Run  # at run time inside functions, since torch takes seconds to import

Placed = Mapping[str, tuple[Path, Purpose | None]]
"""Component -> the folder of its ONNX file, and what its plan is to serve; None: the plan is not used."""


def verify_plan(purpose: Purpose, folder: Path, load: Load = TrtComponent) -> dict[str, Any]:
    """The findings for the plan in `folder`, on this machine. Raises `EngineError` or `ParityError`."""
    require_onnx(folder)  # what it is compared with
    record = check_plan(folder, purpose, this_machine(purpose.execution.runtime), whole=True)
    return verify_file(purpose, folder / PLAN_FILE, folder / ONNX_FILE, bounds_from(record.recipe.bounds), load)


def verify_picture(variant: Variant, placed: Placed, steps: int, load: Load = TrtComponent) -> float:
    """PSNR in dB between the picture by the plans in `placed`, and by ONNX Runtime on the files beside them.

    Components without a plan run on ONNX Runtime both times. The size is the one that the denoiser's plan was optimised for.
    """
    from ..onnx import parity

    nets = components(variant)

    @contextmanager
    def by_onnx(component: str) -> Iterator[Run]:
        yield parity.onnx_run(placed[component][0] / ONNX_FILE, nets[component])

    @contextmanager
    def by_plan(component: str) -> Iterator[Run]:
        folder, purpose = placed[component]
        if purpose is None:
            with by_onnx(component) as run:
                yield run
        else:
            with closing(load(folder / PLAN_FILE, nets[component], purpose.execution, {})) as plan:
                yield plan.run

    folder, purpose = placed[DENOISER]
    height, width = variant.defaults.height, variant.defaults.width
    if purpose is not None:
        limits = bounds_from(check_plan(folder, purpose, this_machine(purpose.execution.runtime)).recipe.bounds)
        height, width = (limits[axis].opt * variant.latent_scale for axis in SIDES)
    pictures = [draw(variant, height, width, steps, each) for each in (by_plan, by_onnx)]
    return require_alike(*pictures)


def require_alike(picture: Array, reference: Array) -> float:
    """Their PSNR in dB. Raises `EngineError` below `SMALLEST_PSNR_DB`, and for a picture that is not finite."""
    found = psnr_db(picture, reference)
    if not found >= SMALLEST_PSNR_DB:  # also where it is not a number
        raise EngineError(
            f"the engines' picture is {found:.1f} dB from ONNX Runtime's, expected at least {SMALLEST_PSNR_DB:.0f}: their errors add up"
            " over the steps; look for the component with the largest error above"
        )
    return found


# ---------------------------------------------------------------------------------------------------------------- command
def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    parser.add_argument(
        "--picture", type=int, default=0, metavar="STEPS", help="also draw a picture both ways, in so many steps, and compare"
    )


def run(args: argparse.Namespace) -> int:
    variant = VARIANTS[args.variant]
    chosen = {component: (folder, purpose_of(args, component)) for component, _, folder in selected(args)}
    for folder, purpose in chosen.values():
        check_plan(folder, purpose)  # before TensorRT is asked for: a missing plan is the commoner mistake
    found = [verify_plan(purpose, folder) for folder, purpose in chosen.values()]
    document: dict[str, Any] = {"variant": variant.name, "placement": args.placement, "engines": found}
    if args.picture:
        placed: Placed = {**{name: (folder, None) for name, folder in all_folders(args).items()}, **chosen}
        document["picture_psnr_db"] = round(verify_picture(variant, placed, args.picture), 2)
    print(json.dumps(document))
    return 0
