"""A component's plan, run by Polygraphy's `TrtRunner`: TensorRT for RTX in the server, either TensorRT where plans are verified.

**Loading and running were never tried: no card was at hand.** Until a plan is loaded, tests run everything.

A plan of TensorRT for RTX is finished on the card, kernel by kernel, when shapes come for the first time. What that gives is the
runtime cache: it is kept beside the plan, in a file per card and version, and loaded at the next start.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..contract.errors import UserError
from ..contract.placements import CACHE_SUFFIX, Execution
from ..contract.tensors import Array, Bounds, Signature
from .tensorrt_package import PackageError, find_card, use

log = logging.getLogger(__name__)


class PlanError(UserError):
    """A plan cannot be loaded or run; the message says why and what to do."""


class TrtComponent:
    """A plan on a card, of the shape of `OnnxComponent`. One call at a time, from any thread.

    Raises `PackageError` where TensorRT, the driver or the card is missing, and `PlanError` where the plan does not load.
    """

    def __init__(self, path: Path, signature: Signature, execution: Execution, bounds: Bounds, gpu: int = 0) -> None:
        runtime = execution.runtime
        version = use(runtime)
        card = find_card(gpu)
        self._path, self._signature, self._bounds = path, signature, bounds
        self._cache: Any = None
        self._cache_file = cache_file(path, card.name, version)
        self._known: set[tuple[tuple[int, ...], ...]] = set()
        self._gpu, self._on_gpu = gpu, threading.local()

        from polygraphy.backend.trt import TrtRunner, engine_from_path
        from polygraphy.exception import PolygraphyException

        try:
            select_gpu(gpu)
            engine = engine_from_path(str(path))
            self._check_tensors(engine)
            if execution.weights_on_card_bytes is not None:
                engine.weight_streaming_budget_v2 = min(execution.weights_on_card_bytes, engine.streamable_weights_size)
            context = (
                # What streams is copied in each call, so a call is not captured.
                self._specialised(engine, runtime.cuda_graphs and execution.weights_on_card_bytes is None)
                if runtime.ahead_of_time
                else engine.create_execution_context()
            )
            if context is None:
                raise PlanError(
                    f"{path}: not enough GPU memory for its activations; build it for smaller pictures (`--largest` of `python -m export"
                    " engine`)"
                )
            self._runner = TrtRunner(context)
            self._runner.activate()
        except (PolygraphyException, OSError) as error:
            raise PlanError(
                f"{path}: {runtime.package} {version} cannot load it on {card.name} ({error}): another version, another card, or too"
                " little memory"
            ) from error

    def run(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """The component's outputs for its declared inputs. Raises `TensorError`, and `PlanError` where the plan does not run."""
        from polygraphy.exception import PolygraphyException

        self._signature.check_inputs(arrays, self._bounds)
        if not hasattr(self._on_gpu, "yes"):  # CUDA's current device is a thread's own
            select_gpu(self._gpu)
            self._on_gpu.yes = True
        try:
            found = self._runner.infer(
                {name: np.ascontiguousarray(array) for name, array in arrays.items()}, check_inputs=False
            )
        except PolygraphyException as error:
            shapes = {name: list(array.shape) for name, array in arrays.items()}
            raise PlanError(f"{self._path}: TensorRT could not run it on shapes {shapes}: {error}") from error
        # The runner's arrays are views of buffers that its next call overwrites.
        outputs = {tensor.name: np.array(found[tensor.name]) for tensor in self._signature.outputs}
        shapes_of_call = tuple(arrays[tensor.name].shape for tensor in self._signature.inputs)
        if shapes_of_call not in self._known:  # kernels may have been finished for them
            self._known.add(shapes_of_call)
            self._save()
        return outputs

    def warm_up(self, sizes: Iterable[Mapping[str, int]]) -> None:
        """Runs the plan on zeros of each of `sizes`, named axes -> size, so that kernels are finished before somebody waits for them."""
        for each in sizes:
            started = time.monotonic()
            self.run({tensor.name: np.zeros(tensor.shape(each), tensor.dtype.numpy) for tensor in self._signature.inputs})
            log.info("%s: warm for %s after %.1f s", self._path.name, dict(each), time.monotonic() - started)

    def close(self) -> None:
        """Keeps what was finished on the card, and frees its memory."""
        self._save()
        self._runner.deactivate()

    def _specialised(self, engine: Any, cuda_graphs: bool) -> Any:
        """An execution context with the runtime cache of this card, and CUDA graphs if wanted."""
        import tensorrt_rtx as trt

        config = engine.create_runtime_config()
        self._cache = config.create_runtime_cache()
        if self._cache_file.exists() and not self._cache.deserialize(self._cache_file.read_bytes()):
            log.warning("%s: not taken by this card or version; kernels are finished anew", self._cache_file)
        config.set_runtime_cache(self._cache)
        strategy = trt.CudaGraphStrategy
        config.cuda_graph_strategy = strategy.WHOLE_GRAPH_CAPTURE if cuda_graphs else strategy.DISABLED
        return engine.create_execution_context(config)

    def _save(self) -> None:
        if self._cache is None:
            return
        partial = self._cache_file.with_name(f"{self._cache_file.name}.{os.getpid()}.partial")
        try:
            partial.write_bytes(memoryview(self._cache.serialize()))
            partial.replace(self._cache_file)
        except OSError as error:  # a repository that is mounted read-only: the next start finishes its kernels again
            log.warning("%s: not kept: %s", self._cache_file, error)

    def _check_tensors(self, engine: Any) -> None:
        found = {engine.get_tensor_name(i) for i in range(engine.num_io_tensors)}
        declared = {tensor.name for tensor in (*self._signature.inputs, *self._signature.outputs)}
        if found != declared:
            raise PlanError(f"{self._path}: expected tensors {sorted(declared)}, the plan has {sorted(found)}; build it again")


def cache_file(plan: Path, card: str, version: str) -> Path:
    """Where the runtime cache of a plan is kept: one file for each card model and version, since TensorRT takes no other's."""
    return plan.with_name(f"{plan.name}.{re.sub(r'[^A-Za-z0-9.]+', '-', card)}-{version}{CACHE_SUFFIX}")


def select_gpu(gpu: int) -> None:
    """Makes `gpu` the card of this thread, for TensorRT too. Raises `PackageError` where CUDA's runtime library is not found."""
    from polygraphy import cuda

    # Polygraphy looks where the variable says when it is first used, and not yet where wheels for CUDA 13 put the library.
    wheels = [str(folder) for place in sys.path if (folder := Path(place or ".") / "nvidia/cu13/lib").is_dir()]
    known = [folder for folder in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if folder]
    os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(dict.fromkeys([*known, *wheels]))
    try:
        wrapper = cuda.wrapper()
    except OSError as error:
        raise PackageError(f"CUDA's runtime library is not found ({error}); pip install nvidia-cuda-runtime") from error
    wrapper.check(wrapper.handle.cudaSetDevice(gpu))
