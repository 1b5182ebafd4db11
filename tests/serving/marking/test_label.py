"""The visible label: high enough, in its corner, within the picture."""

import numpy as np
import pytest

from faceclip_serving.marking.label import LINES, draw, joined

CORNERS = ("top_right", "top_left", "bottom_right", "bottom_left")


def changed(size, kind, corner):
    """Rows and columns that a label changes in a grey picture."""
    before = np.full((*size, 3), 200, np.uint8)
    after = draw(before, kind, corner)
    assert after.shape == before.shape and after.dtype == np.uint8
    return np.nonzero((after != before).any(axis=(1, 2)))[0], np.nonzero((after != before).any(axis=(0, 2)))[0], after


@pytest.mark.parametrize("size", [(512, 512), (1152, 864), (128, 128), (2048, 2048), (96, 400)])
@pytest.mark.parametrize("kind", LINES)
def test_the_lowest_letter_is_a_twentieth_of_the_short_side(size, kind):
    *_, after = changed(size, kind, "bottom_left")
    ink = (after == 255).all(axis=2) | (after > 225).all(axis=2)
    rows = ink.any(axis=1)
    runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[False], rows, [False]]).astype(int))))[::2]
    lines = sorted(runs, reverse=True)[: len(LINES[kind])]
    assert min(lines) >= 0.05 * min(size) - 1.5, (runs, size)  # edges of letters are grey


@pytest.mark.parametrize("corner", CORNERS)
def test_it_stands_in_its_corner_and_nowhere_else(corner):
    rows, columns, _ = changed((600, 800), "both", corner)
    assert (rows.max() < 300) == corner.startswith("top") and (columns.max() < 400) == corner.endswith("left")
    assert len(rows) < 200 and len(columns) < 400


def test_none_changes_nothing():
    picture = np.zeros((64, 64, 3), np.uint8)
    assert draw(picture, "none", "top_left") is picture


@pytest.mark.parametrize(
    ("server", "request_", "both"),
    [
        ("none", "none", "none"),
        ("none", "zh", "zh"),
        ("en", "none", "en"),
        ("en", "zh", "both"),
        ("both", "zh", "both"),
        ("zh", "zh", "zh"),
    ],
)
def test_a_request_cannot_take_the_servers_label_away(server, request_, both):
    assert joined(server, request_) == joined(request_, server) == both
