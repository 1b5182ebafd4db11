"""Mutants that nobody could tell from the file itself."""

from __future__ import annotations

from collections.abc import Mapping

EQUIVALENT: Mapping[str, Mapping[tuple[str, str], str]] = {}
"""File -> (the lines, the lines with the fault), each as `Mutant` has them -> why that is no fault."""
