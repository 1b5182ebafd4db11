"""SDXL's placements, see `placed`."""

from faceclip_serving.contract.variants.sdxl import TINY_SDXL

from .placed import Placements, pytest_generate_tests

__all__ = ["pytest_generate_tests"]


class TestPlacements(Placements):
    variant = TINY_SDXL
