"""What the checks refuse, mistake and cost: tables of prompts, harmless and not, each by itself, and harmless photographs.

The prompts were written by the authors of the lexicon, so the share of right refusals says that what is meant works, not how much of
what people will write is found. A table that was held out tells that the first time it is run, before anything is changed for it:
those figures stand in docs/responsible.md. Photographs are harmless ones: how many explicit pictures are found is not measured.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from faceclip_serving.checks import policy
from faceclip_serving.checks.lexicon import Lexicon
from faceclip_serving.contract.errors import Refused
from faceclip_serving.face.prepare import THUMBNAIL_SIDE

from ..measure.example import PHOTO
from ..measure.pictures import Picture
from ..measure.report import emit, say

if TYPE_CHECKING:  # ONNX Runtime takes a second to import
    from faceclip_serving.checks.checks import Checks

PROMPTS = Path(__file__).with_name("prompts.txt")
HELD_OUT = tuple(sorted(PROMPTS.parent.glob("held_out*.txt")))
"""Tables that the lexicon had not seen when their first figures were taken, in the order in which they were written."""
OK = "ok"
ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
PICTURE_SIDE = 1024
REPEATS = 15
MAX_FALSE_ALARMS = 0.01


@dataclass(frozen=True)
class Case:
    """A request, and what its check should say: `ok`, or the code of the refusal."""

    language: str
    faces: int
    expected: str
    prompt: str
    negative_prompt: str = ""


def cases(file: Path = PROMPTS) -> list[Case]:
    """Raises ValueError for a line that is none."""
    found = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        language, faces, expected, *texts = (part.strip() for part in line.split("|"))
        found.append(Case(language, int(faces), expected, *texts))
    return found


def measure_prompts(checks: Checks, requests: Sequence[Case]) -> dict[str, Any]:
    """Shares of harmful requests that were refused for the right reason, and of harmless ones that were refused; None of none."""
    wrong, missed, alarms = [], Counter[str](), Counter[str]()
    count, harmful = Counter(each.language for each in requests), Counter(r.language for r in requests if r.expected != OK)
    for each in requests:
        got = _refusal(checks, each)
        if got == each.expected:
            continue
        (missed if each.expected != OK else alarms)[each.language] += 1
        wrong.append({"language": each.language, "prompt": each.prompt, "expected": each.expected, "got": got})
    languages = {
        language: {
            "harmless": count[language] - harmful[language],
            "false_alarms": alarms[language],
            "harmful": harmful[language],
            "missed": missed[language],
        }
        for language in count
    }
    total = sum(harmful.values())
    harmless = len(requests) - total
    return {
        "harmless": harmless,
        "harmful": total,
        "refusals_right": round(1 - sum(missed.values()) / total, 4) if total else None,
        "false_alarm_share": round(sum(alarms.values()) / harmless, 4) if harmless else None,
        "languages": languages,
        "wrong": wrong,
    }


def _refusal(checks: Checks, case: Case) -> str:
    try:
        checks.prompt(case.prompt, case.negative_prompt, case.faces)
    except Refused as error:
        return error.code.removeprefix("policy.")
    return OK


def measure_pictures(pictures: Sequence[Picture], thresholds: policy.Thresholds) -> dict[str, Any]:
    """Scores of harmless pictures."""
    from faceclip_serving.checks.explicit import explicit

    scores = explicit()(pictures)
    return {
        "pictures": len(scores),
        "score_max": round(max(scores), 3),
        "reviewed": sum(thresholds.action(score) == policy.REVIEW for score in scores),
        "refused": sum(thresholds.action(score) == policy.REFUSE for score in scores),
    }


def measure_times(checks: Checks, requests: Iterable[Case], picture: Picture) -> dict[str, float]:
    """Milliseconds: medians."""
    prompts = [_ms(lambda each=each: _refusal(checks, each)) for each in requests]  # type: ignore[misc]
    one, four = ([_ms(lambda count=count: checks.pictures([picture] * count)) for _ in range(REPEATS)] for count in (1, 4))  # type: ignore[misc]
    photograph = np.asarray(Image.fromarray(picture).resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE)))
    return {
        "prompt": round(statistics.median(prompts), 3),
        "prompt_longest": round(_ms(lambda: checks.prompt("a portrait, studio light, " * 400, "", 1)), 1),
        "photograph": round(statistics.median(_ms(lambda: checks.photographs([photograph], [])) for _ in range(REPEATS)), 1),
        "picture": round(statistics.median(one), 1),
        "pictures_4": round(statistics.median(four), 1),
        "lexicon_load": round(_ms(Lexicon), 1),
    }


def _ms(call: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    call()
    return (time.perf_counter() - begun) * 1e3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--policy", type=Path, metavar="FILE", help="default: the package's own")
    parser.add_argument("--prompts", type=Path, default=PROMPTS, metavar="FILE", help="in the form of prompts.txt")
    parser.add_argument(
        "--photos", type=Path, action="append", default=[], metavar="FOLDER", help="more harmless photographs; may be repeated"
    )


def run(args: argparse.Namespace) -> int:
    from faceclip_serving.checks.checks import Checks

    requests = cases(args.prompts)
    checks = Checks(policy.read(args.policy))
    found = measure_prompts(checks, requests)
    found["held_out"] = {file.stem: measure_prompts(checks, cases(file)) for file in HELD_OUT}
    for name, table in ((args.prompts.stem, found), *found["held_out"].items()):
        _tell(name, table)
    paths = [PHOTO, *(path for folder in args.photos for path in sorted(folder.iterdir()) if path.suffix.lower() in ENDINGS)]
    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    large = np.asarray(Image.fromarray(pictures[0]).resize((PICTURE_SIDE, PICTURE_SIDE)))
    found["harmless_pictures"] = measure_pictures(pictures, checks.policy.pictures)
    found["ms"] = measure_times(checks, requests, large)
    emit("checks", found)
    return 1 if (found["false_alarm_share"] or 0) > MAX_FALSE_ALARMS else 0


def _tell(name: str, table: Mapping[str, Any]) -> None:
    say(
        f"{name}: of {table['harmful']} harmful prompts, refused rightly {table['refusals_right']}; "
        f"of {table['harmless']} harmless ones, refused {table['false_alarm_share']}"
    )
    for each in table["wrong"]:
        say(f"  {each['language']}: expected {each['expected']}, got {each['got']}: {each['prompt']}")
    for language, row in table["languages"].items():
        say(f"  {language}: " + ", ".join(f"{key} {count}" for key, count in row.items()))
