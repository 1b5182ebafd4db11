import numpy as np
import pytest

from faceclip_serving.contract.components import bounds, components, usual_sizes
from faceclip_serving.contract.models import ensemble_steps, models
from faceclip_serving.contract.names import COMPONENTS, DENOISER
from faceclip_serving.contract.placements import placements
from faceclip_serving.contract.tensors import DType, Range, Signature, Tensor, TensorError
from faceclip_serving.contract.variants.table import VARIANTS

PAIR = Signature(
    "pair",
    (Tensor("a", DType.FP32, ("rows", 3), "first"), Tensor("b", DType.INT64, ("rows", 1), "second")),
    (Tensor("c", DType.FP32, ("rows", "width"), "third"),),
    "for tests",
)


def arrays(**changes):
    return {"a": np.zeros((2, 3), np.float32), "b": np.zeros((2, 1), np.int64), **changes}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"a": np.zeros((2, 3))}, ["'a'", "FP32 [rows, 3]", "float64"]),
        ({"a": np.zeros((2, 4), np.float32)}, ["'a'", "[2, 4]"]),
        ({"a": np.zeros(3, np.float32)}, ["'a'", "[3]"]),
        ({"b": np.zeros((3, 1), np.int64)}, ["'b'", "'rows'", "3", "2"]),
        ({"x": np.zeros(1)}, ["unknown ['x']"]),
    ],
)
def test_a_wrong_tensor_is_named_with_what_was_expected(changes, words):
    with pytest.raises(TensorError) as caught:
        PAIR.check_inputs(arrays(**changes))
    for word in ["pair input", *words]:
        assert word in str(caught.value)


def test_missing_tensor_and_bounds():
    PAIR.check_inputs(arrays(), {"rows": Range(1, 1, 2)})
    with pytest.raises(TensorError, match="between 1 and 1, got 2"):
        PAIR.check_inputs(arrays(), {"rows": Range(1, 1, 1)})
    with pytest.raises(TensorError, match=r"missing \['b'\]"):
        PAIR.check_inputs({"a": np.zeros((2, 3), np.float32)})


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda variant: variant.name)
def test_every_dynamic_axis_of_a_component_has_bounds_or_follows_from_its_inputs(variant):
    limits = bounds(variant, denoiser_rows=8)
    for name, signature in components(variant).items():
        assert name in COMPONENTS
        for tensor in signature.inputs:
            assert set(tensor.dynamic_axes.values()) <= set(limits[name]), (name, tensor.name)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda variant: variant.name)
def test_the_ensemble_is_connected_and_types_agree(variant):
    """Every tensor a step reads exists by then, with the very dtype and axes it is declared with there."""
    signatures = models(variant)
    ensemble = signatures["faceclip"]
    known = {tensor.name: tensor for tensor in ensemble.inputs}
    for step in ensemble_steps(variant):
        for name, bound_to in step.inputs.items():
            declared = signatures[step.model].input(name)
            assert known[bound_to].dtype is declared.dtype
            assert known[bound_to].dims == declared.dims
        made = {tensor.name: tensor for tensor in signatures[step.model].outputs}
        known |= {bound_to: made[name] for name, bound_to in step.outputs.items()}
        assert all(tensor.name in step.outputs for tensor in made.values() if not tensor.optional), (
            "Triton waits for all of them"
        )
    for tensor in ensemble.outputs:
        assert known[tensor.name].dims == tensor.dims


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda variant: variant.name)
def test_the_usual_sizes_are_the_default_picture_alone_and_in_full_calls_within_the_bounds(variant):
    for placement in placements(variant).values():
        narrowed = placement.narrowed(variant)
        for component, limits in bounds(narrowed, placement.denoiser_rows, placement.vae_tile).items():
            for sizes in usual_sizes(narrowed, limits):
                assert sizes.keys() == limits.keys()
                assert all(limits[axis].min <= size <= limits[axis].max for axis, size in sizes.items()), (component, sizes)
            if component == DENOISER:
                found = usual_sizes(narrowed, limits)
                assert found[-1]["rows"] == placement.denoiser_rows
                assert found[0]["latent_height"] == narrowed.defaults.height // variant.latent_scale
