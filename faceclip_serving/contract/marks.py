"""Names of what marks a picture as generated."""

from __future__ import annotations

MARKS = ("watermark", "metadata", "credentials")
"""What every picture gets unless the setting `marks` says otherwise: the invisible mark, XMP, C2PA."""
LABELS = ("none", "zh", "en", "both")
"""Visible labels: none, in Chinese, in English, in both."""
CORNERS = ("top_right", "top_left", "bottom_right", "bottom_left")
"""Where they stand."""
