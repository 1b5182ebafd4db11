"""A scene in English: many sentences for one picture, some of which leave things out.

`caption` draws a random sentence; `describe` is a full, fixed one for evaluation. Identity is named only by noun ("man", "woman")
and, at times, by hair, beard and glasses, as photographs' captions do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .people import Identity, Scene

PLACE_PHRASES: Mapping[str, Sequence[str]] = {
    "beach": ("on a beach", "at the beach", "by the sea under a palm tree", "on a sunny beach"),
    "forest": ("in a forest", "in the woods", "among green trees"),
    "city": ("in the city", "in a city street", "in front of tall buildings"),
    "mountains": ("in the mountains", "in front of snowy peaks", "in front of mountains"),
    "desert": ("in the desert", "in a desert with cactus", "among sand dunes"),
    "snow": ("in the snow", "in a snowy landscape", "in winter snow"),
    "library": ("in a library", "in front of book shelves", "in an old library"),
    "garden": ("in a garden", "in a flower garden", "among flowers"),
    "space": ("in space", "in outer space", "among stars and planets"),
    "stage": ("on a stage", "on stage in front of a red curtain", "in a theatre"),
    "harbour": ("in a harbour", "at the harbour", "in front of sailing boats"),
    "kitchen": ("in a kitchen", "in the kitchen", "in a bright kitchen"),
}
TIME_PHRASES: Mapping[str, Sequence[str]] = {
    "day": ("", "", "by day", "during the day", "in daylight"),
    "sunset": ("at sunset", "in the evening", "at dusk"),
    "night": ("at night", "under the night sky", "in moonlight"),
}
LIGHT_PHRASES: Mapping[str, Sequence[str]] = {
    "soft": ("", "", "soft light"),
    "golden": ("golden light", "warm light"),
    "side": ("dramatic side light", "side light"),
}
EXPRESSION_PHRASES: Mapping[str, Sequence[str]] = {
    "neutral": ("", "calm", "with a neutral expression"),
    "smiling": ("smiling", "with a smile", "happy"),
    "laughing": ("laughing", "with a big laugh"),
    "sad": ("sad", "looking sad"),
    "surprised": ("surprised", "looking surprised"),
}
HAIR_PHRASES: Mapping[str, str] = {
    "bald": "a bald head", "short": "short {} hair", "parted": "parted {} hair", "curly": "curly {} hair", "afro": "a {} afro",
    "long": "long {} hair", "wavy": "wavy {} hair", "bob": "a {} bob", "bun": "{} hair in a bun", "fringe": "{} hair with a fringe",
    "spiky": "spiky {} hair",
}  # fmt: skip
BEARD_PHRASES: Mapping[str, str] = {
    "none": "", "stubble": "stubble", "moustache": "a moustache", "goatee": "a goatee", "full": "a full beard",
}  # fmt: skip
_TEMPLATES = (
    "{subject} {wearing}, {expression}, {place} {time}, {light}",
    "{subject} {place} {time}, {wearing}, {expression}, {light}",
    "portrait of {subject} {wearing}, {place}, {expression}, {time}, {light}",
    "{light}, {subject} {wearing}, {expression}, {place} {time}",
    "{time}, {place}, {subject} {wearing}, {expression}, {light}",
    "photo of {subject}, {expression}, {wearing}, {place}, {time}, {light}",
    "{place}, {subject}, {wearing}, {time}, {expression}, {light}",
)


def article(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def clothing(scene: Scene) -> str:
    return article(f"{scene.garment_colour} {scene.garment}")


def headwear(scene: Scene) -> str:
    """Empty without a hat; hats that are partly coloured name the colour too."""
    return "" if scene.hat == "none" else article(f"{scene.hat_colour} {scene.hat}")


def looks(identity: Identity) -> list[str]:
    """Hair, beard and glasses in words."""
    hair = HAIR_PHRASES[identity.hair_style].format(identity.hair_colour)
    if hair.startswith("a "):
        hair = article(hair[2:])
    beard = BEARD_PHRASES[identity.beard]
    return [hair, *([beard] if beard else []), *([] if identity.glasses == "none" else ["glasses"])]


def caption(identity: Identity, scene: Scene, r: np.random.Generator) -> str:
    """A random sentence. Every part is left out now and then."""

    def pick(options: Sequence[str], kept: float) -> str:
        return str(options[int(r.integers(len(options)))]) if r.uniform() < kept else ""

    subject = article(identity.noun) if r.uniform() < 0.85 else "a person"
    if r.uniform() < 0.3:
        named = [part for part in looks(identity) if r.uniform() < 0.8]
        subject += f" with {' and '.join(named)}" if named else ""
    worn = [clothing(scene)] if r.uniform() < 0.9 else []
    if scene.hat != "none" and r.uniform() < 0.92:
        worn.append(headwear(scene))
    verb = ("wearing", "in", "dressed in")[int(r.integers(3))]
    return _sentence(
        _TEMPLATES[int(r.integers(len(_TEMPLATES)))],
        subject=subject,
        wearing=f"{verb} {' and '.join(worn)}" if worn else "",
        expression=pick(EXPRESSION_PHRASES[scene.expression], 0.85),
        place=pick(PLACE_PHRASES[scene.place], 0.93),
        time=pick(TIME_PHRASES[scene.time], 0.85) if scene.time != "day" or r.uniform() < 0.5 else "",
        light=pick(LIGHT_PHRASES[scene.light], 0.8),
    )


def describe(identity: Identity, scene: Scene) -> str:
    """The full sentence that evaluation uses; names no hair, beard or glasses, and says every expression, the neutral one too."""
    worn = " and ".join(part for part in (clothing(scene), headwear(scene)) if part)
    return _sentence(
        _TEMPLATES[0],
        subject=article(identity.noun),
        wearing=f"wearing {worn}",
        expression=EXPRESSION_PHRASES[scene.expression][0] or EXPRESSION_PHRASES[scene.expression][-1],
        place=PLACE_PHRASES[scene.place][0],
        time=TIME_PHRASES[scene.time][0],
        light=LIGHT_PHRASES[scene.light][1] if scene.light == "golden" else LIGHT_PHRASES[scene.light][0],
    )


def _sentence(template: str, **parts: str) -> str:
    pieces = [" ".join(piece.split()) for piece in template.format(**parts).split(",")]
    text = ", ".join(piece for piece in pieces if piece)
    return text[0].upper() + text[1:] + "."
