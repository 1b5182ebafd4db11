"""The only module that speaks to TensorRT: parse and build, refit, run, inspect. One code for 10.12 and later, and for 11.

Only what both majors have is used. Networks are strongly typed, so precision is what the ONNX graph says; TF32 is switched off,
since whatever is FP32 in a graph is so on purpose. TensorRT is imported inside functions: everything else works without it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsInt, TextIO, cast

import numpy as np

from faceclip_serving.contract.tensors import Array, Signature

from .device import Device
from .errors import EngineError
from .options import HARDWARE, Options, builder_flags, workspace_bytes
from .progress import Progress
from .shapes import ShapeRange

if TYPE_CHECKING:
    import tensorrt as trt

OLDEST = (10, 12)
PACKAGE = "tensorrt"


@dataclass(frozen=True)
class Built:
    plan: bytes | memoryview
    timing_cache: bytes | memoryview


def version() -> str:
    """TensorRT's version. Raises `EngineError` where it is missing, cannot be loaded, or is older than `OLDEST`."""
    oldest = ".".join(map(str, OLDEST))
    advice = (
        f"engines need the Python package '{PACKAGE}' {oldest} or later, of the very version that the server has;"
        " build inside the serving image (deploy/README.md), where both are the same"
    )
    if find_spec(PACKAGE) is None:
        raise EngineError(f"{PACKAGE} is not installed: {advice}")
    try:
        import tensorrt as trt
    except (ImportError, OSError) as error:
        raise EngineError(f"{PACKAGE} is installed, but its libraries do not load ({error}): {advice}") from error
    found = str(trt.__version__)
    check_version(found)
    return found


def check_version(found: str) -> None:
    """Raises `EngineError` for a TensorRT that this code was not written for."""
    major, minor = (int(part) for part in found.split(".")[:2])
    if (major, minor) < OLDEST:
        raise EngineError(f"{PACKAGE}: expected {'.'.join(map(str, OLDEST))} or later, found {found}")


# ------------------------------------------------------------------------------------------------------------------ build
def build(
    onnx: Path,
    shapes: Mapping[str, ShapeRange],
    options: Options,
    timing_cache: bytes,
    log: TextIO,
    progress: Progress,
) -> Built:
    """A plan for the current GPU. `timing_cache`: of an earlier build on such a GPU, or empty. Raises `EngineError`."""
    import tensorrt as trt

    logger = _logger(log)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx)):
        raise EngineError(f"{onnx}: TensorRT's parser refused it: {_parser_errors(parser)}")
    declared = {network.get_input(i).name for i in range(network.num_inputs)}
    if declared != shapes.keys():
        raise EngineError(f"{onnx}: expected inputs {sorted(shapes)}, the graph has {sorted(declared)}; export it again")

    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    for name, found in shapes.items():
        profile.set_shape(name, *(trt.Dims(list(shape)) for shape in found))
    if config.add_optimization_profile(profile) < 0:
        raise EngineError(f"{onnx}: TensorRT refused the shapes {dict(shapes)}; see the build log")
    for flag in builder_flags(options):
        config.set_flag(trt.BuilderFlag.__members__[flag])
    config.clear_flag(trt.BuilderFlag.TF32)
    config.builder_optimization_level = options.optimization_level
    config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.__members__[HARDWARE[options.hardware]]
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # `inspect` reads precisions from it; it costs no speed
    config.progress_monitor = _monitor(progress)
    workspace = workspace_bytes(options)
    if workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    if not config.set_timing_cache(config.create_timing_cache(timing_cache), False):
        config.set_timing_cache(config.create_timing_cache(b""), False)  # of another driver, perhaps: measure anew

    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(f"{onnx}: TensorRT could not build it; the reason is in the build log")
    return Built(_bytes(plan), _bytes(config.get_timing_cache().serialize()))


def refit(plan: bytes, onnx: Path, log: TextIO) -> bytes | memoryview:
    """The plan with the weights of another ONNX file of the same graph, as of a fused LoRA. Raises `EngineError`."""
    import tensorrt as trt

    logger = _logger(log)
    engine = _deserialized(plan, logger)
    if not engine.refittable:
        raise EngineError("the plan cannot be refitted; build it with --refit")
    refitter = trt.Refitter(engine, logger)
    parser = trt.OnnxParserRefitter(refitter, logger)
    if not parser.refit_from_file(str(onnx)):
        raise EngineError(f"{onnx}: TensorRT cannot take its weights: {_parser_errors(parser)}")
    missing = refitter.get_missing_weights()
    if missing:
        raise EngineError(f"{onnx}: has no values for {len(missing)} weights of the plan, e.g. {missing[:3]}; build instead")
    if not refitter.refit_cuda_engine():
        raise EngineError(f"{onnx}: TensorRT could not exchange the weights; the reason is in the log")
    # The default keeps the weights in, which is what a stripped plan is refitted for.
    return _bytes(engine.serialize_with_config(engine.create_serialization_config()))


# -------------------------------------------------------------------------------------------------------------------- run
@contextmanager
def running(path: Path, signature: Signature, device: Device) -> Iterator[Callable[[Mapping[str, Array]], dict[str, Array]]]:
    """The plan as a function of named arrays, on `device`, one call at a time."""
    engine = _deserialized(path.read_bytes(), _logger(io.StringIO()))
    _check_tensors(path, engine, signature)
    context = engine.create_execution_context()
    if context is None:
        raise EngineError(f"{path}: not enough GPU memory for its activations; see `--largest` of `python -m export engine`")

    def run(arrays: Mapping[str, Array]) -> dict[str, Array]:
        signature.check_inputs(arrays)
        with ExitStack() as stack:
            for tensor in signature.inputs:
                array = arrays[tensor.name]
                if not context.set_input_shape(tensor.name, tuple(array.shape)):
                    raise EngineError(f"{path}: input '{tensor.name}': shape {list(array.shape)} is outside the plan's profile")
                address = stack.enter_context(device.memory(array.nbytes))
                device.upload(address, array)
                context.set_tensor_address(tensor.name, address)
            outputs: dict[str, tuple[int, Array]] = {}
            for tensor in signature.outputs:
                array = np.empty(_shape(context.get_tensor_shape(tensor.name)), tensor.dtype.numpy)
                address = stack.enter_context(device.memory(array.nbytes))
                context.set_tensor_address(tensor.name, address)
                outputs[tensor.name] = (address, array)
            if not context.execute_async_v3(device.stream):
                raise EngineError(f"{path}: TensorRT could not run it on shapes { {n: a.shape for n, a in arrays.items()} }")
            device.synchronize()
            for address, array in outputs.values():
                device.download(address, array)
        return {name: array for name, (_, array) in outputs.items()}

    yield run


def information(path: Path) -> dict[str, Any]:
    """The engine inspector's JSON, with the usual shapes set: without them formats of a dynamic engine are not told."""
    import tensorrt as trt

    engine = _deserialized(path.read_bytes(), _logger(io.StringIO()))
    inspector = engine.create_engine_inspector()
    context = engine.create_execution_context()
    for i in range(engine.num_io_tensors):
        name = engine.get_tensor_name(i)
        if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
            context.set_input_shape(name, _shape(engine.get_tensor_profile_shape(name, 0)[1]))
    inspector.execution_context = context
    document = json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    return cast("dict[str, Any]", document)


# ------------------------------------------------------------------------------------------------------------------ parts
def _deserialized(plan: bytes, logger: trt.ILogger) -> trt.ICudaEngine:
    import tensorrt as trt

    engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
    if engine is None:
        raise EngineError("TensorRT cannot load the plan: another GPU or TensorRT version built it, or memory is short")
    return engine


def _check_tensors(path: Path, engine: trt.ICudaEngine, signature: Signature) -> None:
    found = {engine.get_tensor_name(i) for i in range(engine.num_io_tensors)}
    declared = {tensor.name for tensor in (*signature.inputs, *signature.outputs)}
    if found != declared:
        raise EngineError(f"{path}: expected tensors {sorted(declared)}, the plan has {sorted(found)}; build it again")


def _shape(dims: trt.Dims) -> tuple[int, ...]:
    return tuple(dims[i] for i in range(len(dims)))


def _bytes(memory: trt.IHostMemory) -> memoryview:
    # It has the buffer protocol, which its declaration does not say; a view spares a copy of gigabytes.
    return memoryview(cast("Any", memory))


def _parser_errors(parser: trt.OnnxParser | trt.OnnxParserRefitter) -> str:
    errors = (parser.get_error(i) for i in range(parser.num_errors))
    return "; ".join(f"{error.node_operator()} '{error.node_name()}': {error.desc()}" for error in errors) or "no reason given"


def _logger(log: TextIO) -> trt.ILogger:
    """Everything that TensorRT says but its verbose chatter, into `log`."""
    import tensorrt as trt

    class Logger(trt.ILogger):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            if severity != trt.ILogger.VERBOSE:
                log.write(f"{severity} {msg}\n")

    return Logger()


def _monitor(progress: Progress) -> trt.IProgressMonitor:
    import tensorrt as trt

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str, num_steps: SupportsInt) -> None:
            progress.start(phase_name, parent_phase, int(num_steps))

        def phase_finish(self, phase_name: str) -> None:
            progress.finish(phase_name)

        def step_complete(self, phase_name: str, step: SupportsInt) -> bool:
            progress.step(phase_name, int(step))
            return True  # go on building

    return Monitor()
