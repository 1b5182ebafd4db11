"""People of whom an operator makes no pictures: names, and faces by a recogniser that is independent of FaceCLIP (dlib's ResNet).

Of faces nothing is stored: the operator's photographs are read when a model's process starts, and their descriptors live in its memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ..contract.errors import InvalidRequest
from ..contract.tensors import Array
from ..contract.variants.architectures import FACE_SIZE
from ..face.alignment import TEMPLATE, align_face, fit_similarity
from ..face.detectors import YuNet
from ..face.prepare import prepare_face
from ..face.search import TURNS, find_faces
from .policy import PolicyError

MAX_NAMES = 100_000
MAX_FACES = 2_000
ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
SIDE = 150
_EYES = np.array([[47.7, 47.1], [100.3, 47.1]])
"""Where the eyes are in the picture that the recogniser takes: a quarter of it is margin, as dlib cuts faces."""


def names_of(path: Path) -> list[str]:
    """The names of a file, a line each. Raises `PolicyError`."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise PolicyError(f"policy: [listed] names: expected text in UTF-8, '{path}' cannot be read ({error})") from None
    names = [line.replace("*", "").strip() for line in lines if line.strip() and not line.startswith("#")]
    if len(names) > MAX_NAMES:
        raise PolicyError(f"policy: [listed] names: at most {MAX_NAMES} are looked for, '{path}' has {len(names)}")
    return names


class Recogniser:
    """Descriptors of faces. May be used by several threads."""

    def __init__(self, path: Path) -> None:
        """Raises `PolicyError` where the file is another one."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            shapes = [(each.name, each.shape[1:]) for each in (*self._session.get_inputs(), *self._session.get_outputs())]
        except Exception as error:  # noqa: BLE001 - ONNX Runtime has no base class of its own
            raise PolicyError(f"policy: [listed] recogniser: '{path}' cannot be opened ({error})") from None
        if shapes != [("face", [3, SIDE, SIDE]), ("descriptor", [128])]:
            raise PolicyError(
                f"policy: [listed] recogniser: expected the file of `python -m export recogniser`, '{path}' has {shapes}"
            )
        self._similarity = fit_similarity(TEMPLATE[:2], _EYES)

    def __call__(self, crop: Array) -> NDArray[np.float32]:
        """The descriptor [128] of an aligned face, [3, 448, 448] in [0, 1]."""
        picture = np.ascontiguousarray(crop.transpose(1, 2, 0))
        half = cv2.resize(picture, (FACE_SIZE // 2, FACE_SIZE // 2), interpolation=cv2.INTER_AREA)
        scale = np.array([[2.0, 0.0, 0.5], [0.0, 2.0, 0.5], [0.0, 0.0, 1.0]])  # pixels of the half are between two of the whole
        small = cv2.warpAffine(half, self._similarity @ scale, (SIDE, SIDE), flags=cv2.INTER_LINEAR)
        found: Any = self._session.run(["descriptor"], {"face": (255 * small).transpose(2, 0, 1)[None].astype(np.float32)})
        return np.asarray(found[0][0], np.float32)


class ListedFaces:
    """The faces of a folder of photographs. May be used by several threads."""

    def __init__(self, folder: Path, recogniser: Path, distance: float) -> None:
        """Raises `PolicyError` where a photograph has no usable face."""
        self._describe = Recogniser(recogniser)
        self.recogniser = hashlib.sha256(recogniser.read_bytes()).hexdigest()
        """By whose descriptors faces are compared: the digest of its file."""
        self._detect = YuNet()
        self._distance = distance
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)
        if not 1 <= len(paths) <= MAX_FACES:
            raise PolicyError(
                f"policy: [listed] faces: expected 1 to {MAX_FACES} photographs ({', '.join(ENDINGS)}), '{folder}' has {len(paths)}"
            )
        self._known = np.stack([self._read(path) for path in paths])

    def __call__(self, crop: Array, trusted: bool = True) -> tuple[bool, float]:
        """Whether a face is one of the listed, and how far it is from the nearest: Euclidean, 0 to about 1.5.

        `trusted`: the crop was aligned by this server. Else its faces are found here, at any size and turn; where none is, the crop
        counts in all four quarter turns.
        """
        return self.near(self.descriptors(crop, trusted))

    def descriptors(self, crop: Array, trusted: bool = True) -> list[NDArray[np.float32]]:
        """By which a face is compared, [128] each: one, or one for each of its views where it is not `trusted`."""
        return [self._describe(each) for each in ([crop] if trusted else self._views(crop))]

    def near(self, descriptors: Sequence[NDArray[np.float32]]) -> tuple[bool, float]:
        """The answer for a face whose descriptors are known."""
        nearest = min(float(np.linalg.norm(self._known - each, axis=1).min()) for each in descriptors)
        return nearest < self._distance, nearest

    def _views(self, crop: Array) -> list[Array]:
        pixels = np.ascontiguousarray(np.rint(crop.transpose(1, 2, 0) * 255).astype(np.uint8))
        faces = find_faces(pixels, self._detect)
        if faces:
            return [crop, *(align_face(pixels, face.landmarks) for face in faces)]
        return [np.ascontiguousarray(np.rot90(crop, turns, axes=(1, 2))) for turns in range(TURNS)]

    def _read(self, path: Path) -> NDArray[np.float32]:
        try:
            return self._describe(prepare_face(path.read_bytes(), 0, False, YuNet()).crop)
        except (OSError, InvalidRequest) as error:
            why = str(error).removeprefix("face_images[0]: ")
            raise PolicyError(f"policy: [listed] faces: '{path}': {why}") from None
