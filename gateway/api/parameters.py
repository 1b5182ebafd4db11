"""The parameters of a request as fields of a JSON body or a form.

Rendered by `python -m export interface`: change faceclip_serving/contract/parameters.py, not this file.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field


# fmt: off
class ParameterFields(BaseModel):
    """What is left out, or null, the server decides. Ranges that its variant decides are checked there."""

    negative_prompt: Annotated[str | None, Field(max_length=10000, description=
        "What the picture should not show; may be empty (at most 10000 characters; default: the variant's).")] = None
    original_prompt: Annotated[str | None, Field(max_length=10000, description=
        "What was put into English before it was sent: the checks read it too, and no network does (at most 10000 "
        "characters; default: empty).")] = None
    prompt_weighting: Annotated[bool | None, Field(description=
        "Brackets in prompts are weights: (hat:1.3), (hat) for 1.1, [hat] for 1/1.1; \\( is a bracket itself; false: all "
        "are text (default: true).")] = None
    long_prompts: Annotated[bool | None, Field(description=
        "Prompts beyond the tokens of one row are read in several, where the model can; BREAK begins one; false: the rest"
        " is left out (default: true).")] = None
    seed: Annotated[int | None, Field(ge=0, le=9223372036854775807, description=
        "Repeats a picture; picture i of a request uses seed + i (0 to 2^63-1; default: random, reported).")] = None
    num_inference_steps: Annotated[int | None, Field(description=
        "Denoising steps (default: the variant's).")] = None
    guidance_scale: Annotated[float | None, Field(description=
        "How closely to follow the prompt; at or below 1 only the conditional branch runs (default: the variant's).")] = None
    id_guidance_scale: Annotated[float | None, Field(ge=0.0, le=5.0, description=
        "Split guidance: weight of the face; 3.0 where only text_guidance_scale is given (0 to 5; default: none).")] = None
    text_guidance_scale: Annotated[float | None, Field(ge=0.0, le=20.0, description=
        "Split guidance: weight of the text; guidance_scale where only id_guidance_scale is given (0 to 20; default: "
        "none).")] = None
    blend_weight: Annotated[float | None, Field(ge=0.0, le=1.0, description=
        "Conditioning between the prompt without (0) and with (1) the face (0 to 1; default: 1.0).")] = None
    guidance_start: Annotated[float | None, Field(ge=0.0, le=1.0, description=
        "Share of the steps where guidance begins (0 to 1; default: 0.0).")] = None
    guidance_end: Annotated[float | None, Field(ge=0.0, le=1.0, description=
        "Share of the steps where guidance ends (0 to 1; default: 1.0).")] = None
    id_start: Annotated[float | None, Field(ge=0.0, le=1.0, description=
        "Share of the steps where the face begins to act (0 to 1; default: 0.0).")] = None
    id_end: Annotated[float | None, Field(ge=0.0, le=1.0, description=
        "Share of the steps where the face stops to act (0 to 1; default: 1.0).")] = None
    height: Annotated[int | None, Field(description=
        "Height of the picture in pixels (default: the variant's).")] = None
    width: Annotated[int | None, Field(description=
        "Width of the picture in pixels (default: the variant's).")] = None
    scheduler: Annotated[str | None, Field(description=
        "A diffusers scheduler class, or its short name such as euler (default: the variant's).")] = None
    scheduler_options: Annotated[dict[str, Any] | str | None, Field(description=
        "Entries of the scheduler's configuration, as JSON (default: {}).")] = None
    step_cache: Annotated[float | None, Field(description=
        "Above 0: a step whose input changed less than this takes the last prediction; faster, and another picture "
        "(default: 0.0).")] = None
    face_aligned: Annotated[bool | None, Field(description=
        "The photographs are aligned square face crops already (default: false).")] = None
    face_weighting: Annotated[Literal["equal", "quality"] | None, Field(description=
        "Of several references; quality: clear, frontal ones count more (equal, quality; default: equal).")] = None
    face_index: Annotated[list[int] | None, Field(description=
        "Which face of each photograph, a number for each: 0 is the largest; left out: the largest (default: none).")] = None
    face_boxes: Annotated[list[float] | None, Field(description=
        "Where in each photograph the face is, four numbers for each, one after the other; instead of face_index "
        "(default: none).")] = None
    strength: Annotated[float | None, Field(ge=0.0, le=1.0, description=
        "How much of image is drawn anew: that share of the steps is run; left out: diffusers', 0.3, with a mask 0.9999, "
        "of FLUX 0.6 (0 to 1; default: none).")] = None
    face_box: Annotated[list[float] | None, Field(description=
        "Where in image the face of mask is; left out: the largest (left, top, right, bottom from 0 to 1; default: none).")] = None
    padding_mask_crop: Annotated[int | None, Field(ge=0, le=4096, description=
        "Draw what is within so many pixels of the mask at the model's size, and put it back (0 to 4096 pixels; default: "
        "none).")] = None
    face_detail: Annotated[float | None, Field(ge=0.0, le=1.0, description=
        "Above 0: faces in the result that are small are drawn again at the model's size, at this strength, and put back "
        "(0 to 1; default: 0.0).")] = None
    visible_label: Annotated[Literal["none", "zh", "en", "both"] | None, Field(description=
        "A label in a corner that the picture is generated, in Chinese (zh), English (en) or both; the server may want "
        "one itself (none, zh, en, both; default: none).")] = None
    consent: Annotated[dict[str, Any] | str | None, Field(description=
        "Consent of the person in the photographs; the server may require it (a JSON record, as python -m server consent "
        "sign makes it, at most 60000 characters; default: none).")] = None
    remember: Annotated[bool | None, Field(description=
        "Encodings of the photographs and prompts may stay in the server's memory for some minutes (default: true).")] = None
    priority: Annotated[Literal["interactive", "batch"] | None, Field(description=
        "Interactive goes before batch when requests wait (interactive, batch; default: interactive).")] = None
