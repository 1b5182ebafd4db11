"""Where training computes, and in which numbers."""

from __future__ import annotations

import pytest
import torch

from training import device


@pytest.mark.parametrize(("has", "used"), [(True, torch.bfloat16), (False, torch.float32)])
def test_products_are_in_bfloat16_only_where_the_processor_has_them(
    has: bool, used: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "_BFLOAT16", has)
    with device.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == used
