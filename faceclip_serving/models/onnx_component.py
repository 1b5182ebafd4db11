"""A component on ONNX Runtime: one class for all of them, wherever they run.

On the CPU arrays go in and out as they are; on CUDA they are bound, so that each input is copied to the device once and the
outputs come straight back. Neither the signature nor the caller changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from ..contract.placements import CUDA_CURE, CUDA_PROVIDER
from ..contract.tensors import Array, Bounds, Signature

SPIN_US = 20
"""A denoiser of `tiny-sdxl` takes 0.7 of the time that it takes where threads sleep at once, and the cores work 1.04 times as much
where it shares them with a decoder; 100: 0.7 and 1.2."""
CUDA_OPTIONS: Mapping[str, str] = {"cudnn_conv_algo_search": "HEURISTIC"}
"""cuDNN says which kernel a convolution should have. ONNX Runtime's default tries them for every new shape, and rows and sizes change
with the requests: on an H100 the first call of a shape of SDXL's denoiser takes 0.5 to 0.9 s so, 1.2 to 3.1 s by trying, later ones the
same (docs/measured.md)."""

Provider = str | tuple[str, dict[str, str]]
"""Name of an execution provider, or name and options."""


class OnnxComponent:
    """A session over `model.onnx`. `run` checks its inputs, so a wrong tensor is named instead of failing inside a kernel."""

    def __init__(
        self,
        path: Path,
        signature: Signature,
        providers: Sequence[Provider],
        bounds: Bounds,
        threads: int = 0,
        session: Mapping[str, str] | None = None,
    ) -> None:
        """`providers`: names, or names with options. `threads`: 0 for one per core.

        `session`: ONNX Runtime's configuration entries, on top of those set here.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Components take turns on the same cores, so a thread that has nothing to do sleeps; but not before the next operator of a
        # small network can have come, since to wake takes several times as long.
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_US))
        # A plan of one call's memory serves only calls of the same shapes, and is held beside the arena: twice the memory, no time
        # gained, measured on denoisers and decoders.
        options.enable_mem_pattern = False
        for key, value in (session or {}).items():
            options.add_session_config_entry(key, value)
        wanted = with_options(providers)
        first = wanted[0] if isinstance(wanted[0], str) else wanted[0][0]
        if first == CUDA_PROVIDER:
            onnxruntime.preload_dlls()  # CUDA and cuDNN of NVIDIA's wheels lie where no loader looks
        self._session = onnxruntime.InferenceSession(str(path), options, providers=wanted)
        missing = first not in self._session.get_providers()
        if missing:
            raise RuntimeError(
                f"{signature.name}: expected {first}, but ONNX Runtime offers {self._session.get_providers()};"
                f" {CUDA_CURE}, or use the cpu placement"
            )
        self._bound = first != "CPUExecutionProvider"
        self._signature = signature
        self._bounds = bounds
        self._outputs = [tensor.name for tensor in signature.outputs]

    def warm_up(self, sizes: Mapping[str, int]) -> None:
        """Runs the component on zeros at `sizes`, named axes -> size, so that kernels are chosen before somebody waits for them."""
        self.run({tensor.name: np.zeros(tensor.shape(sizes), tensor.dtype.numpy) for tensor in self._signature.inputs})

    def run(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """The component's outputs for its declared inputs. Raises `TensorError`."""
        self._signature.check_inputs(arrays, self._bounds)
        if not self._bound:
            return dict(zip(self._outputs, self._session.run(self._outputs, dict(arrays)), strict=True))
        binding = self._session.io_binding()
        for name, array in arrays.items():
            binding.bind_cpu_input(name, array)
        for name in self._outputs:
            binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding)
        return dict(zip(self._outputs, binding.copy_outputs_to_cpu(), strict=True))


def with_options(providers: Sequence[Provider]) -> list[Provider]:
    """The providers, CUDA's with `CUDA_OPTIONS`, on top of which are those that it has."""

    def completed(provider: Provider) -> Provider:
        name, own = (provider, {}) if isinstance(provider, str) else provider
        return (name, {**CUDA_OPTIONS, **own}) if name == CUDA_PROVIDER else provider

    return [completed(each) for each in providers]
