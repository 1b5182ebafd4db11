"""A GPU through the CUDA driver alone: its name for records, and memory for running an engine.

The driver's own library is on every machine that has a GPU, so that neither torch with CUDA nor a binding package is needed
beside TensorRT. Knows CUDA's driver interface; nothing of engines.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from faceclip_serving.contract.tensors import Array

from .errors import EngineError

_LIBRARY = "libcuda.so.1"
_NAME_BYTES = 256
_MAJOR, _MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""


@dataclass(frozen=True)
class Device:
    """One GPU with its primary context current in this thread, and a stream on it."""

    name: str
    compute_capability: str
    driver: str
    """Newest CUDA version that the driver runs."""
    stream: int
    cuda: Any
    """The driver's library."""

    @contextmanager
    def memory(self, size_bytes: int) -> Iterator[int]:
        """An address of device memory, given back at the end."""
        address = ctypes.c_uint64()
        # An empty tensor still needs an address of its own.
        _check(self.cuda, self.cuda.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(max(size_bytes, 1))), "cuMemAlloc")
        try:
            yield int(address.value)
        finally:
            self.cuda.cuMemFree_v2(address)

    def upload(self, address: int, array: Array) -> None:
        array = np.ascontiguousarray(array)
        if array.nbytes:
            source = ctypes.c_void_p(array.ctypes.data)
            code = self.cuda.cuMemcpyHtoD_v2(ctypes.c_uint64(address), source, ctypes.c_size_t(array.nbytes))
            _check(self.cuda, code, "cuMemcpyHtoD")

    def download(self, address: int, array: Array) -> None:
        """Fills `array`, which is contiguous, from device memory."""
        if array.nbytes:
            target = ctypes.c_void_p(array.ctypes.data)
            code = self.cuda.cuMemcpyDtoH_v2(target, ctypes.c_uint64(address), ctypes.c_size_t(array.nbytes))
            _check(self.cuda, code, "cuMemcpyDtoH")

    def synchronize(self) -> None:
        """Waits for the stream; errors of what ran on it are raised here."""
        _check(self.cuda, self.cuda.cuStreamSynchronize(ctypes.c_void_p(self.stream)), "cuStreamSynchronize")


def open_device(index: int = 0) -> Device:
    """The GPU that CUDA counts as `index` (CUDA_VISIBLE_DEVICES applies). Raises `EngineError` where there is none."""
    try:
        cuda = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise EngineError(
            f"no CUDA driver here ({error}): TensorRT engines are built and run on the machine, and with the GPU, that serves them"
        ) from None
    _check(cuda, cuda.cuInit(0), "cuInit")
    device, count = ctypes.c_int(), ctypes.c_int()
    _check(cuda, cuda.cuDeviceGetCount(ctypes.byref(count)), "cuDeviceGetCount")
    if index >= count.value:
        raise EngineError(f"GPU {index}: CUDA sees {count.value} GPUs here; is CUDA_VISIBLE_DEVICES set, or --gpus missing?")
    _check(cuda, cuda.cuDeviceGet(ctypes.byref(device), index), "cuDeviceGet")
    name = ctypes.create_string_buffer(_NAME_BYTES)
    _check(cuda, cuda.cuDeviceGetName(name, _NAME_BYTES, device), "cuDeviceGetName")
    capability = []
    for attribute in (_MAJOR, _MINOR):
        value = ctypes.c_int()
        _check(cuda, cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device), "cuDeviceGetAttribute")
        capability.append(str(value.value))
    version = ctypes.c_int()
    _check(cuda, cuda.cuDriverGetVersion(ctypes.byref(version)), "cuDriverGetVersion")
    context, stream = ctypes.c_void_p(), ctypes.c_void_p()
    # The primary context is the one that TensorRT's CUDA runtime uses too, so that addresses mean the same to both.
    _check(cuda, cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device), "cuDevicePrimaryCtxRetain")
    _check(cuda, cuda.cuCtxSetCurrent(context), "cuCtxSetCurrent")
    _check(cuda, cuda.cuStreamCreate(ctypes.byref(stream), 0), "cuStreamCreate")
    return Device(name.value.decode(), ".".join(capability), driver_version(version.value), int(stream.value or 0), cuda)


def driver_version(number: int) -> str:
    """CUDA's version number, e.g. 13010, as `13.1`."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _check(cuda: Any, code: int, call: str) -> None:
    if code:
        text = ctypes.c_char_p()
        cuda.cuGetErrorString(code, ctypes.byref(text))
        reason = text.value.decode() if text.value else f"error {code}"
        raise EngineError(f"{call}: the CUDA driver says: {reason} (code {code})")
