"""Scores for pictures of real people, whoever made them: identity by a pluggable ONNX recogniser, and the share without a face.

Layout: one folder per person with `reference.*` and any number of generated pictures. Faces are found and aligned as the server does.
The recogniser must be independent of the conditioner; it takes [n, 3, 112, 112] RGB in [-1, 1] (ArcFace's form) and gives [n, d].
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from faceclip_serving.contract.errors import InvalidRequest, UserError
from faceclip_serving.face.detectors import YuNet
from faceclip_serving.face.prepare import prepare_face

from .metrics import identity_scores, unit, verification_auc

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


class PhotographsError(UserError):
    """A folder of photographs that cannot be scored; the message says what is missing."""


def score_folder(folder: Path, recogniser: Path | None) -> dict[str, Any]:
    """Identity columns over all persons in `folder`. Raises `PhotographsError`."""
    if recogniser is None:
        raise PhotographsError(
            "recogniser: --pictures needs --recogniser MODEL.onnx, a face recogniser that the conditioner does not use"
        )
    if not folder.is_dir():
        raise PhotographsError(f"pictures: expected a folder with one folder per person, there is no {folder}")
    try:
        session = onnxruntime.InferenceSession(str(recogniser), providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors have no common base
        raise PhotographsError(f"recogniser: ONNX Runtime cannot open {recogniser}: {error}") from None
    people: list[NDArray[np.float32]] = []
    generated: list[NDArray[np.float32]] = []
    who: list[int] = []
    missing = 0
    for person in sorted(path for path in folder.iterdir() if path.is_dir()):
        files = sorted(file for file in person.iterdir() if file.suffix.lower() in _SUFFIXES)
        references = [file for file in files if file.stem == "reference"]
        if not references:
            raise PhotographsError(
                f"pictures: {person} has no reference.png; add the photograph that the pictures were made from"
            )
        face = _face(references[0])
        if face is None:
            raise PhotographsError(f"pictures: no face is found in {references[0]}; use another photograph")
        for file in files:
            found = None if file in references else _face(file)
            missing += found is None and file not in references
            if found is not None:
                generated.append(_features(session, found))
                who.append(len(people))
        people.append(_features(session, face))
    if len(people) < 2 or not generated:
        raise PhotographsError(f"pictures: two persons with generated pictures are needed in {folder}, got {len(people)}")
    same, other = identity_scores(np.stack(generated), np.stack(people), np.array(who))
    return {
        "id_similarity": round(float(same.mean()), 4),
        "other_similarity": round(float(other.mean()), 4),
        "verification_auc": round(verification_auc(same, other), 4),
        "no_face_rate": round(missing / (missing + len(generated)), 4),
        "pictures": missing + len(generated),
    }


def _face(file: Path) -> NDArray[np.float32] | None:
    """The aligned face at 112 pixels, [3, 112, 112] RGB in [-1, 1]; None where the server's detector finds none."""
    try:
        crop = prepare_face(file.read_bytes(), 0, False, YuNet()).crop
    except InvalidRequest:
        return None
    small = cv2.resize(crop.transpose(1, 2, 0), (112, 112), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(small.transpose(2, 0, 1) * 2 - 1, dtype=np.float32)


def _features(session: onnxruntime.InferenceSession, face: NDArray[np.float32]) -> NDArray[np.float32]:
    name = session.get_inputs()[0].name
    return np.asarray(unit(np.asarray(session.run(None, {name: face[None]})[0], np.float32))[0], np.float32)
