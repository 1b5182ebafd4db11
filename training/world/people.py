"""What exists in the rendered world: identities (who), scenes (where, wearing what, in which light) and how they are drawn at random.

Identity never changes between pictures of a person; a scene is all that a prompt can name plus nuisance that it cannot
(pose, scale, position). Colours and names are data; drawing is elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .canvas import Colour, mix

SKIN: tuple[Colour, ...] = (
    (255, 226, 205), (247, 208, 178), (235, 188, 150), (214, 160, 118), (180, 123, 84), (141, 90, 60), (98, 62, 45),
)  # fmt: skip
HAIR_COLOURS: Mapping[str, Colour] = {
    "black": (44, 38, 46), "brown": (104, 64, 40), "auburn": (150, 68, 40), "red": (206, 92, 44), "blonde": (232, 190, 108),
    "grey": (164, 164, 172), "white": (238, 234, 228), "blue": (66, 110, 190),
}  # fmt: skip
EYE_COLOURS: Mapping[str, Colour] = {
    "brown": (110, 68, 36), "blue": (70, 138, 214), "green": (74, 150, 92), "grey": (120, 132, 146), "hazel": (164, 122, 50),
}  # fmt: skip
HAIR_STYLES = ("bald", "short", "parted", "curly", "afro", "long", "wavy", "bob", "bun", "fringe", "spiky")
BEARDS = ("none", "stubble", "moustache", "goatee", "full")
GLASSES = ("none", "round", "square", "wide")

PLACES = (
    "beach", "forest", "city", "mountains", "desert", "snow", "library", "garden", "space", "stage", "harbour", "kitchen",
)  # fmt: skip
GARMENTS = ("t-shirt", "shirt", "hoodie", "suit", "striped sweater", "coat")
HATS = ("none", "cap", "beanie", "straw hat", "crown", "top hat")
EXPRESSIONS = ("neutral", "smiling", "laughing", "sad", "surprised")
LIGHTS = ("soft", "golden", "side")
TIMES = ("day", "sunset", "night")
COLOURS: Mapping[str, Colour] = {
    "red": (208, 62, 60), "orange": (238, 142, 56), "yellow": (246, 208, 82), "green": (86, 158, 98), "blue": (66, 118, 196),
    "purple": (134, 88, 172), "pink": (240, 150, 176), "black": (58, 56, 66), "white": (242, 240, 236),
}  # fmt: skip
INDOORS = ("library", "stage", "kitchen", "space")
"""Places that have no time of day."""


@dataclass(frozen=True)
class Identity:
    """One person. Lengths are factors of the average face's, about 0.8 to 1.25; `skin` runs over the palette in [0, 1]."""

    number: int
    noun: str
    skin: float
    face_width: float
    face_length: float
    jaw: float
    chin: float
    eye_spacing: float
    eye_size: float
    eye_slant: float
    eye_colour: str
    brow_thickness: float
    brow_arch: float
    nose_length: float
    nose_width: float
    mouth_width: float
    lip_fullness: float
    ear_size: float
    hair_style: str
    hair_colour: str
    beard: str
    glasses: str
    freckles: float
    mole: int
    """0 none, 1 left cheek, 2 right cheek, 3 chin."""
    blush: float

    @property
    def skin_colour(self) -> Colour:
        place = self.skin * (len(SKIN) - 1)
        low = min(int(place), len(SKIN) - 2)
        return mix(SKIN[low], SKIN[low + 1], place - low)


@dataclass(frozen=True)
class Scene:
    """One picture's surroundings. `yaw`, `pitch`, `turn` in radians; `scale`, `x`, `y` relative to the usual framing."""

    place: str
    time: str
    light: str
    garment: str
    garment_colour: str
    hat: str
    hat_colour: str
    expression: str
    yaw: float
    pitch: float
    turn: float
    scale: float
    x: float
    y: float
    detail: int
    """Seed of details that nobody names: clouds, trees, books."""


def generator(*key: object) -> np.random.Generator:
    """A random stream that depends on the key alone, in every process and on every machine."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def sample_identity(number: int, world: str = "nano") -> Identity:
    """The person with this number; the same for ever."""
    r = generator(world, "identity", number)

    def factor(spread: float) -> float:
        return float(1 + spread * r.uniform(-1, 1))

    noun = str(r.choice(["man", "woman"]))
    masculine = noun == "man"
    style_odds = np.array([2, 3, 3, 2, 1.5, 0.6, 0.6, 0.5, 0.6, 1, 2] if masculine else [0.4, 1, 1, 2, 2, 3, 3, 3, 2.5, 3, 0.6])
    beard_odds = [0.36, 0.14, 0.16, 0.14, 0.2] if masculine else [1, 0, 0, 0, 0]
    return Identity(
        number=number,
        noun=noun,
        skin=float(r.uniform(0, 1)),
        face_width=factor(0.13) * (1.02 if masculine else 0.98),
        face_length=factor(0.1),
        jaw=factor(0.2) * (1.08 if masculine else 0.92),
        chin=factor(0.35),
        eye_spacing=factor(0.18),
        eye_size=factor(0.24) * (0.94 if masculine else 1.06),
        eye_slant=float(r.uniform(-0.22, 0.22)),
        eye_colour=str(r.choice(list(EYE_COLOURS))),
        brow_thickness=factor(0.5) * (1.15 if masculine else 0.85),
        brow_arch=float(r.uniform(-0.6, 1)),
        nose_length=factor(0.25),
        nose_width=factor(0.35),
        mouth_width=factor(0.24),
        lip_fullness=factor(0.4) * (0.8 if masculine else 1.2),
        ear_size=factor(0.3),
        hair_style=str(r.choice(HAIR_STYLES, p=style_odds / style_odds.sum())),
        hair_colour=str(r.choice(list(HAIR_COLOURS), p=[0.2, 0.2, 0.11, 0.12, 0.16, 0.08, 0.07, 0.06])),
        beard=str(r.choice(BEARDS, p=beard_odds)),
        glasses=str(r.choice(GLASSES, p=[0.6, 0.15, 0.15, 0.1])),
        freckles=float(max(0.0, r.uniform(-1.6, 1))),
        mole=int(r.choice(4, p=[0.7, 0.1, 0.1, 0.1])),
        blush=float(r.uniform(0, 1)),
    )


def sample_scene(*key: object, pose: float = 1.0) -> Scene:
    """A random scene for this key. `pose`: 0 a frontal passport picture, 1 the usual variety, above 1 more."""
    r = generator("scene", *key)
    place = str(r.choice(PLACES))
    return Scene(
        place=place,
        time="day" if place in INDOORS else str(r.choice(TIMES, p=[0.6, 0.2, 0.2])),
        light=str(r.choice(LIGHTS, p=[0.6, 0.2, 0.2])),
        garment=str(r.choice(GARMENTS)),
        garment_colour=str(r.choice(list(COLOURS))),
        hat=str(r.choice(HATS, p=[0.5, 0.1, 0.1, 0.1, 0.1, 0.1])),
        hat_colour=str(r.choice(list(COLOURS))),
        expression=str(r.choice(EXPRESSIONS, p=[0.3, 0.3, 0.16, 0.12, 0.12])),
        yaw=float(np.clip(r.normal(0, 0.2), -0.5, 0.5) * pose),
        pitch=float(np.clip(r.normal(0, 0.08), -0.18, 0.18) * pose),
        turn=float(np.clip(r.normal(0, 0.06), -0.15, 0.15) * pose),
        scale=float(1 + r.uniform(-0.1, 0.08) * min(pose, 1.0)),
        x=float(r.uniform(-0.04, 0.04) * min(pose, 1.0)),
        y=float(r.uniform(-0.025, 0.025) * min(pose, 1.0)),
        detail=int(r.integers(1 << 30)),
    )
