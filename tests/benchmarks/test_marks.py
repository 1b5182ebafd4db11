"""The measurement of marks, over two pictures."""

import numpy as np
import pytest
from PIL import Image

from benchmarks.marks.attacks import ATTACKS, BEYOND
from benchmarks.marks.command import measure_marks
from export.paths import ROOT


@pytest.fixture(scope="module")
def found():
    picture = Image.open(ROOT / "examples" / "portrait.png").convert("RGB")
    sets = {"large": [np.array(picture)], "small": [np.array(picture.resize((128, 128)))]}
    return measure_marks(sets, 43.0, crops=4, search_s=0.1, beyond=False)


def test_the_report_has_every_attack_and_both_sets(found):
    assert list(found["recovered"]) == list(ATTACKS) and set(found["sets"]) == {"large", "small"}
    assert found["sets"]["large"]["recovered"]["jpeg_70"] == found["recovered"]["none"] == 1.0
    assert 37 < found["sets"]["small"]["psnr_db"] < 39 < 42 < found["sets"]["large"]["psnr_db"] < 44
    assert found["false_alarms"] == 0 and found["embed_ms"] > 0 and found["all_marks_ms"] > 0


@pytest.mark.parametrize("attack", [*ATTACKS, *BEYOND])
def test_every_attack_gives_a_picture(attack):
    picture = np.random.default_rng(0).integers(0, 256, (160, 200, 3), dtype=np.uint8)
    left = {**ATTACKS, **BEYOND}[attack](picture)
    assert left.dtype == np.uint8 and left.ndim == 3 and left.shape[2] == 3 and min(left.shape[:2]) > 30
    assert attack == "none" or left.shape != picture.shape or not np.array_equal(left, picture)
