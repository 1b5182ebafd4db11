"""Mutants that nobody could tell from the file itself."""

from __future__ import annotations

from collections.abc import Mapping

_REST = "numpy takes any negative size for the rest"
_ALONE = "there the tile is alone, and its share is divided by itself"
_ORDER = "only what is greater counts"
_SUMS = "`ends` are sums of `counts`, as many as these"
_REGISTERS = "registers are as many as `before` says"
_SEED = "any seed will do"
_BOTH = "both have a row per tile"
_PREVIEWS = "faceclip_serving/sampling/previews.py"

EQUIVALENT: Mapping[str, Mapping[tuple[str, str], str]] = {
    "faceclip_serving/contract/parameters.py": {
        (
            'return field(metadata={"declared": Parameter("", dtype, default, allowed, doc, short, (count,), needs)})',
            "return field(metadata={\"declared\": Parameter('XX', dtype, default, allowed, doc, short, (count,), needs)})",
        ): "`SCALARS` gives each the name of its field",
    },
    "faceclip_serving/contract/request.py": {
        ("_HEAD = 256", "_HEAD = 257"): "every format of pictures says what it is in a fraction of that",
    },
    _PREVIEWS: {
        ("rng = np.random.default_rng(0)", "rng = np.random.default_rng(1)"): _SEED,
        (
            "design = _with_constant(latents.transpose(0, 2, 3, 1).reshape(-1, channels))",
            "design = _with_constant(latents.transpose(0, 2, 3, 1).reshape(-2, channels))",
        ): _REST,
        (
            "factors = np.linalg.lstsq(design, means.transpose(0, 2, 3, 1).reshape(-1, 3), rcond=None)[0]",
            "factors = np.linalg.lstsq(design, means.transpose(0, 2, 3, 1).reshape(-2, 3), rcond=None)[0]",
        ): _REST,
    },
    "faceclip_serving/sampling/fairness.py": {("self._turns = 0", "self._turns = 1"): _ORDER},
    "faceclip_serving/sampling/life.py": {
        ("self._changes = 0", "self._changes = 1"): _ORDER,
        ("self._changes += 1", "self._changes += 2"): _ORDER,
    },
    "faceclip_serving/sampling/loop.py": {
        (
            "return [noise_pred[end - count : end] for end, count in zip(ends, counts, strict=True)], sum(counts)",
            "return [noise_pred[end - count : end] for end, count in zip(ends, counts)], sum(counts)",
        ): _SUMS,
        (
            "return [noise_pred[end - count : end] for end, count in zip(ends, counts, strict=True)], sum(counts)",
            "return [noise_pred[end - count : end] for end, count in zip(ends, counts, strict=False)], sum(counts)",
        ): _SUMS,
        ("own_since = 0.0", "own_since = 1.0"): "the first round sets it",
    },
    "faceclip_serving/sampling/picture.py": {
        (
            "while self.cache.threshold > 0 and not self.done:",
            "while (self.cache.threshold >= 0) and not self.done:",
        ): "`serves` says no at 0; this spares asking",
    },
    "faceclip_serving/sampling/pictures.py": {
        ("batch, tick = Batch(), 0", "batch, tick = Batch(), 1"): _ORDER,
        (
            "return {b: {name: array.astype(np.float32, copy=False) for name, array in c.items()} for b, c in branches.items()}",
            "return {b: {name: array.astype(np.float32) for name, array in c.items()} for b, c in branches.items()}",
        ): "the same numbers, once more",
        ("_REMEMBERED_BATCHES = 4", "_REMEMBERED_BATCHES = 5"): "how many is a choice; which are forgotten first is tested",
    },
    "faceclip_serving/sampling/probe.py": {
        ("generator = torch.Generator().manual_seed(0)", "generator = torch.Generator().manual_seed(1)"): _SEED,
        (
            "for slot, tensor in zip(before[1:], registers[1:], strict=True):",
            "for slot, tensor in zip(before[1:], registers[1:]):",
        ): _REGISTERS,
        (
            "for slot, tensor in zip(before[1:], registers[1:], strict=True):",
            "for slot, tensor in zip(before[1:], registers[1:], strict=False):",
        ): _REGISTERS,
    },
    "faceclip_serving/sampling/reasons.py": {
        ("REASONS_KEPT = 1024", "REASONS_KEPT = 1025"): "how many is a choice; that they are bounded is tested",
    },
    "faceclip_serving/sampling/requests.py": {
        ('priority: str = "interactive"', "priority: str = ''"): "only `batch` is told apart, and whoever enters says which",
    },
    "faceclip_serving/sampling/step_cache.py": {
        ("_changed: float = 0.0", "_changed: float = 1.0"): "`remember` sets it before `serves` reads it",
    },
    "faceclip_serving/sampling/tiling.py": {
        (
            "before = starts[i - 1] + tile - start if i else 0",
            "before = starts[i - 1] + tile - start if i else 1",
        ): _ALONE,
        (
            "after = start + tile - starts[i + 1] if i < steps else 0",
            "after = start + tile - starts[i + 1] if i < steps else 1",
        ): _ALONE,
        ("for start, row in zip(starts, raw, strict=True)", "for start, row in zip(starts, raw)"): _BOTH,
        ("for start, row in zip(starts, raw, strict=True)", "for start, row in zip(starts, raw, strict=False)"): _BOTH,
        (
            "return picture.clip(0, 1, out=picture)  # shares of one, rounded, may add up to a trifle more",
            "return picture.clip(0, 1)  # shares of one, rounded, may add up to a trifle more",
        ): "in place, so that no second picture is needed",
    },
}
"""File -> (the lines, the lines with the fault), each as `Mutant` has them -> why that is no fault."""
