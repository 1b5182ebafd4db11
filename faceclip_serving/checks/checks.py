"""All checks of a request, as a policy has them: of its prompt, of its photographs, of the pictures that were made.

Each check makes a decision for each thing it looks at. Decisions hold scores and codes, never a text, a picture or anything of a face;
they are kept for the operator's records. A caller hears the code and a sentence of what is refused, and no score.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from ..contract.errors import Refused
from ..contract.tensors import Array
from .explicit import Pixels, explicit
from .folding import fold, terms_of_name
from .hooks import Hook, HookFailed, Question
from .lexicon import Terms, lexicon
from .listed import ListedFaces, names_of
from .policy import ALLOW, FACE, PHOTOGRAPHS, PICTURES, PROMPT, REFUSE, REVIEW, STAGES, Policy

_SENTENCES = {
    "minor": "the prompt joins a minor with nudity, sexuality or suggestive clothes; no such picture is made here",
    "nudity": "the prompt joins a person's face with nudity or sexuality; no such picture is made here",
    "sexual": "the prompt asks for a sexual picture; no such picture is made here",
    "violence": "the prompt joins a person with cruelty; no such picture is made here",
    "impersonation": "the prompt asks for a forgery with a person's face; no such picture is made here",
}
_CURE = "; change the prompt; what a picture should not show belongs in negative_prompt"
_UNCHECKED = "unchecked"


@dataclass(frozen=True)
class Decision:
    """What one check says of one thing. For records, not for answers."""

    check: str
    """`prompt`, `photographs`, `pictures`, `names`, `faces`, or the name of a hook."""
    subject: str
    """What was looked at: `prompt`, `face_images[0]`, `images[0]`."""
    action: str
    """`allow`, `review` or `refuse`."""
    code: str = ""
    """Where it is not allowed: `minor`, say."""
    score: float = 0.0
    concepts: tuple[str, ...] = ()
    """That were found in the prompt."""
    sentence: str = ""
    """For the caller."""
    note: str = ""
    """For the operator: why a hook could not be asked."""

    @property
    def message(self) -> str:
        return f"policy.{self.code}: {self.sentence}"

    def record(self) -> dict[str, Any]:
        """JSON-able, for the operator's records."""
        told = asdict(self)
        del told["sentence"]
        return {**told, "score": round(self.score, 4)}


class RefusedBy(Refused):
    """With the decisions that led to it."""

    def __init__(self, message: str, decisions: Sequence[Decision]) -> None:
        super().__init__(message, {"checks": [each.record() for each in decisions]})
        self.decisions = tuple(decisions)


class Checks:
    """May be used by several threads."""

    def __init__(self, policy: Policy, stages: Sequence[str] = STAGES) -> None:
        """`stages`: that will be checked here; what the others need is not loaded. Raises `PolicyError`."""
        self.policy = policy
        self._hooks = {stage: [Hook(spec) for spec in policy.hooks_on(stage)] for stage in stages}
        self._explicit = {
            stage: explicit()
            for stage, thresholds in ((PHOTOGRAPHS, policy.photographs), (PICTURES, policy.pictures))
            if stage in stages and thresholds
        }
        if PROMPT in stages and policy.rules:
            lexicon()  # now, and not in a request
        self._names = None
        if PROMPT in stages and policy.names is not None:
            self._names = Terms(("name", term) for name in names_of(policy.names) for term in terms_of_name(name))
        self._faces = None
        if PHOTOGRAPHS in stages and policy.faces is not None and policy.recogniser is not None:
            self._faces = ListedFaces(policy.faces, policy.recogniser, policy.distance)

    @property
    def asks_others(self) -> bool:
        """Whether prompts are judged by a hook, which may take its time."""
        return bool(self._hooks.get(PROMPT))

    def prompt(self, prompt: str, negative_prompt: str, faces: int, further: Sequence[str] = ()) -> list[Decision]:
        """Decisions on a request's words. `faces`: how many photographs come with it. `further`: prompts of people in the same
        picture, and other forms in which it gets the words; what one names and what another names are in it together. Forms of the
        negative prompt have a line each. Raises `RefusedBy`."""
        prompts = (prompt, *further)
        decisions = [self._by_rules(prompts, negative_prompt, faces)] if self.policy.rules else []
        if self._names is not None:
            listed = any(self._names.found(fold(each)) for each in prompts)
            sentence = "the prompt names somebody of whom this server makes no pictures; leave the name out"
            decisions.append(_decision("names", "prompt", REFUSE if listed else ALLOW, "name_listed", float(listed), sentence))
        question = {"stage": PROMPT, "prompt": "\n".join(prompts), "negative_prompt": negative_prompt, "faces": faces}
        decisions += self._asked(PROMPT, "prompt", question)
        return settled(decisions)

    @property
    def knows_faces(self) -> bool:
        """Whether faces of photographs are compared to listed ones."""
        return self._faces is not None

    def photographs(self, thumbnails: Sequence[Pixels], crops: Sequence[Array], trusted: bool = True) -> list[Decision]:
        """Decisions on a request's photographs. `crops`: their faces, [3, 448, 448] in [0, 1]. `trusted`: aligned by this server, and
        not by the caller. Raises `RefusedBy`."""
        return self._of_photographs(thumbnails, crops, trusted, lambda i: f"face_images[{i}]")

    def image(self, thumbnail: Pixels, crops: Sequence[Array]) -> list[Decision]:
        """Decisions on a picture to change, as on a photograph of all its faces. Raises `RefusedBy`."""
        return self._of_photographs([thumbnail], crops, True, lambda _: "image")

    def _of_photographs(
        self, thumbnails: Sequence[Pixels], crops: Sequence[Array], trusted: bool, name: Callable[[int], str]
    ) -> list[Decision]:
        decisions = self._looked_at(PHOTOGRAPHS, name, thumbnails)
        if self._faces is not None:
            for i, crop in enumerate(crops):
                near, score = self._faces(crop, trusted)
                sentence = f"{name(i)} shows somebody of whom this server makes no pictures; use another person's photographs"
                decisions.append(_decision("faces", name(i), REFUSE if near else ALLOW, "face_listed", score, sentence))
        return settled(decisions)

    def descriptors(self, crops: Sequence[Array], trusted: bool = True) -> tuple[list[list[float]], str]:
        """What an identity of these faces is compared to listed ones by, later: descriptors, and whose; none where no faces are listed."""
        if self._faces is None:
            return [], ""
        found = [each for crop in crops for each in self._faces.descriptors(crop, trusted)]
        return [each.tolist() for each in found], self._faces.recogniser

    def identity(self, descriptors: Sequence[Sequence[float]], recogniser: str, which: str = "identity") -> list[Decision]:
        """Decisions on a sealed identity: its faces may have been listed since it was made. Raises `RefusedBy`."""
        if self._faces is None:
            return []
        if not descriptors or recogniser != self._faces.recogniser:
            sentence = f"the {which} was made where faces were not compared to listed ones as they are here; make it again"
            return settled([_decision("faces", which, REFUSE, _UNCHECKED, 0.0, sentence)])
        near, score = self._faces.near([np.asarray(each, np.float32) for each in descriptors])
        sentence = f"the {which} is of somebody of whom this server makes no pictures; use another person's photographs"
        return settled([_decision("faces", which, REFUSE if near else ALLOW, "face_listed", score, sentence)])

    def pictures(self, pictures: Sequence[Pixels]) -> list[Decision]:
        """Decisions on what was made. Raises `RefusedBy`: then nothing of the request is delivered."""
        return settled(self._looked_at(PICTURES, lambda i: f"images[{i}]", pictures))

    def _by_rules(self, prompts: Sequence[str], negative_prompt: str, faces: int) -> Decision:
        first, *further = prompts
        found = lexicon().concepts_of(first, negative_prompt).union(*map(lexicon().concepts_of, further))
        concepts = found | ({FACE} if faces else set())
        holding = [rule for rule in self.policy.rules if rule.concepts <= concepts]
        rule = next((each for action in (REFUSE, REVIEW) for each in holding if each.action == action), None)
        if rule is None:
            return Decision(PROMPT, "prompt", ALLOW, concepts=tuple(sorted(found)))
        sentence = _SENTENCES.get(rule.code, "the prompt asks for what this server does not make") + _CURE
        return Decision(PROMPT, "prompt", rule.action, rule.code, 1.0, tuple(sorted(found)), sentence)

    def _looked_at(self, stage: str, name: Callable[[int], str], pictures: Sequence[Pixels]) -> list[Decision]:
        """By the classifier, and by hooks. `name`: of a picture by its place."""
        decisions: list[Decision] = []
        thresholds = self.policy.photographs if stage == PHOTOGRAPHS else self.policy.pictures
        if stage in self._explicit and pictures:
            for i, score in enumerate(self._explicit[stage](pictures)):
                sentence = (
                    f"{name(i)} looks explicit; send another photograph"
                    if stage == PHOTOGRAPHS
                    else "a picture came out that looks explicit, so none of this request is delivered; change the prompt or the seed"
                )
                decisions.append(_decision(stage, name(i), thresholds.action(score), "nudity", score, sentence))
        if self._hooks.get(stage) and pictures:
            decisions += self._asked(
                stage, name(0).partition("[")[0], {"stage": stage, "pictures": [_png(each) for each in pictures]}
            )
        return decisions

    def _asked(self, stage: str, subject: str, question: Question) -> list[Decision]:
        return [_by_hook(hook, subject, question) for hook in self._hooks.get(stage, ())]


def settled(decisions: list[Decision]) -> list[Decision]:
    """The decisions, if nothing is refused. Raises `RefusedBy`: the one place where a request ends by policy."""
    for each in decisions:
        if each.action == REFUSE:
            raise RefusedBy(each.message, decisions)
    return decisions


def _decision(check: str, subject: str, action: str, code: str, score: float, sentence: str) -> Decision:
    return Decision(check, subject, action, score=score) if action == ALLOW else Decision(
        check, subject, action, code, score, sentence=sentence
    )  # fmt: skip


def _by_hook(hook: Hook, subject: str, question: Question) -> Decision:
    name = hook.spec.name
    decide = partial(Decision, name, subject)
    try:
        action, score, reason = hook(question)
    except HookFailed as error:
        sentence = f"the check '{name}' of this server could not be made, and nothing is made unchecked; try again later"
        return decide(REFUSE, _UNCHECKED, sentence=sentence, note=str(error))
    if action == ALLOW:
        return decide(ALLOW, score=score)
    return decide(action, name, score, sentence=reason or f"the check '{name}' of this server says no")


def _png(picture: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_level=1)
    return file.getvalue()
