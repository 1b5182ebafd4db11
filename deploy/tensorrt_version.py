"""Prints the version of the TensorRT library in this image, e.g. `11.3.0`, so that its Python package can be of the same one.

An engine loads only in the version that built it. Asks the library itself, which needs no GPU for that.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import sys


def version(number: int) -> str:
    """What `getInferLibVersion` returns since TensorRT 10, e.g. 101303, as `10.13.3`."""
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


def main() -> int:
    name = ctypes.util.find_library("nvinfer")
    if name is None:
        print(
            "error: no TensorRT library (libnvinfer) in this image; is it one of NVIDIA's tritonserver images?", file=sys.stderr
        )
        return 1
    print(version(ctypes.CDLL(name).getInferLibVersion()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
