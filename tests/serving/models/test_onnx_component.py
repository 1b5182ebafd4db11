"""Options of ONNX Runtime's sessions. CUDA is not here: what is asked of it, not what it does."""

import pytest

from faceclip_serving.contract.names import COMPONENTS
from faceclip_serving.contract.placements import CUDA_PROVIDER, ORT_CUDA, placements
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.models.onnx_component import CUDA_OPTIONS, with_options


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda variant: variant.name)
def test_no_placement_has_kernels_tried_for_every_new_shape(variant):
    for placement in placements(variant).values():
        for component in COMPONENTS:
            asked = placement.providers(component)
            found = with_options(asked)
            assert [name if isinstance(name, str) else name[0] for name in found] == [
                name if isinstance(name, str) else name[0] for name in asked
            ]
            on_cuda = [each[1] for each in found if not isinstance(each, str)]
            wanted = {"device_id": "0", "cudnn_conv_algo_search": "HEURISTIC"}
            assert on_cuda == ([wanted] if placement.components[component].runtime is ORT_CUDA else [])


def test_a_name_alone_has_the_options_too_and_what_is_asked_for_wins():
    assert with_options(ORT_CUDA.providers) == [(CUDA_PROVIDER, dict(CUDA_OPTIONS)), "CPUExecutionProvider"]
    own = dict.fromkeys(CUDA_OPTIONS, "EXHAUSTIVE")
    assert with_options([(CUDA_PROVIDER, own)]) == [(CUDA_PROVIDER, own)]
