"""The only module that speaks to the compiler: parse and build, refit, inspect. One code for TensorRT 10.12 and later, for 11, and for
TensorRT for RTX, through Polygraphy.

Networks are strongly typed, so precision is what the ONNX graph says; TF32 is switched off, since whatever is FP32 in a graph is so on
purpose. Import it inside functions, after `tensorrt_package.use` has chosen the package.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsInt, TextIO, cast

from polygraphy.backend.tensorrt_rtx import CreateConfigRTX
from polygraphy.backend.trt import (
    CreateConfig,
    PostprocessConfig,
    Profile,
    engine_bytes_from_network,
    engine_from_path,
    get_trt_logger,
    network_from_onnx_path,
)
from polygraphy.exception import PolygraphyException
from polygraphy.logger import G_LOGGER
from polygraphy.mod.trt_importer import lazy_import_trt

from faceclip_serving.contract.placements import Runtime
from faceclip_serving.contract.tensors import DType, Signature
from faceclip_serving.models.trt_component import select_gpu

from .errors import EngineError
from .log_layers import Log, products
from .options import Options
from .progress import Progress
from .record import Measured
from .shapes import ShapeRange

if TYPE_CHECKING:
    import tensorrt_rtx as trt
else:
    trt = lazy_import_trt()


@dataclass(frozen=True)
class Work:
    """A plan to be built, for a process of its own."""

    onnx: Path
    plan: Path
    """Where it is written to."""
    log: Path
    signature: Signature
    shapes: Mapping[str, ShapeRange]
    options: Options
    runtime: Runtime
    sm: tuple[int, ...]
    """Compute capabilities to compile for, e.g. 89; empty: the card that is here."""
    timing_cache: Path
    gpu: int = 0
    """Number of the card that TensorRT proper builds on."""


def build(work: Work) -> Measured:
    """Writes the plan and the log; returns what the build took, and what the compiler says of its memory. Raises `EngineError`.

    Call it in a process of its own: after a failed build the next one in the same process may fail as well.
    """
    progress = Progress(work.signature.name)
    started = time.monotonic()
    if not work.runtime.ahead_of_time:
        select_gpu(work.gpu)
    try:
        with work.log.open("w") as log:
            _build(work, log, progress)
    except PolygraphyException as error:
        raise EngineError(f"{work.onnx}: not built: {str(error).splitlines()[0]}{last_errors(work.log)}") from None
    finally:
        progress.close()
    seconds = round(time.monotonic() - started, 1)
    said = work.log.read_text(errors="replace")
    told: dict[str, Any] = {**reported(said), **asdict(products(said))}
    return Measured(seconds, _peak_host_bytes(), **told)


def _build(work: Work, log: TextIO, progress: Progress) -> None:
    options = work.options
    with _logging(log, layers=work.runtime.ahead_of_time):
        network = parsed(work.onnx)
        check_network(work.onnx, network[1], work.signature)
        profile = Profile()
        for name, found in work.shapes.items():
            profile.add(name, *found)
        pools = {trt.MemoryPoolType.WORKSPACE: options.workspace_bytes} if options.workspace_bytes is not None else None
        settings: dict[str, Any] = {
            "profiles": [profile],
            "builder_optimization_level": options.optimization_level,
            "memory_pool_limits": pools,
            "progress_monitor": _monitor(progress),
            "weight_streaming": options.weight_streaming,
        }
        if work.runtime.ahead_of_time:
            capabilities = [divmod(sm, 10) for sm in work.sm]
            config = CreateConfigRTX(compute_capabilities=capabilities, **settings)
            cache = None
        else:
            level = trt.HardwareCompatibilityLevel.__members__[options.hardware_level]
            cache = str(work.timing_cache)
            known = cache if work.timing_cache.exists() else None
            config = CreateConfig(
                refittable=options.refit,
                strip_plan=options.stripped,
                hardware_compatibility_level=level,
                load_timing_cache=known,
                **settings,
            )

        def finish(_: trt.Builder, __: trt.INetworkDefinition, found: trt.IBuilderConfig) -> None:
            found.clear_flag(trt.BuilderFlag.TF32)
            if work.runtime.ahead_of_time:
                # Products that could run side by side would: each with 8 MiB of scratch memory of its own, and for little, since
                # a product fills a card. It happens with INT8 and INT4 weights, whose products are not merged into one.
                found.max_aux_streams = 0
            if options.stripped and not options.refit:
                found.set_flag(trt.BuilderFlag.__members__["REFIT_IDENTICAL"])

        plan = engine_bytes_from_network(network, PostprocessConfig(config, finish), save_timing_cache=cache)
        work.plan.write_bytes(memoryview(plan))


def parsed(onnx: Path) -> tuple[trt.Builder, trt.INetworkDefinition, trt.OnnxParser]:
    """An ONNX file as the compiler's parser reads it."""
    found: tuple[trt.Builder, trt.INetworkDefinition, trt.OnnxParser] = network_from_onnx_path(str(onnx), strongly_typed=True)
    return found


def check_network(onnx: Path, network: trt.INetworkDefinition, signature: Signature) -> None:
    """Raises `EngineError` unless names, types and axes of the parsed inputs and outputs are those of the signature."""
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    outputs = [network.get_output(i) for i in range(network.num_outputs)]
    for what, found, declared in (("inputs", inputs, signature.inputs), ("outputs", outputs, signature.outputs)):
        got = {tensor.name: (tensor.dtype.name, _sizes(tensor.shape)) for tensor in found}
        expected = {
            tensor.name: ("FLOAT" if tensor.dtype is DType.FP32 else tensor.dtype.name, tensor.dims) for tensor in declared
        }
        if got.keys() != expected.keys() or not all(_alike(got[name], expected[name]) for name in expected):
            raise EngineError(f"{onnx}: {what}: expected {expected}, the graph has {got}; export it again")


def _sizes(dims: trt.Dims) -> list[int]:
    return [dims[i] for i in range(len(dims))]


def _alike(got: tuple[str, list[int]], expected: tuple[str, list[int]]) -> bool:
    """Whether type and axes agree; the parser may know the size of an axis (or not) where the declaration does not (or does)."""
    (dtype, shape), (wanted, dims) = got, expected
    return dtype == wanted and len(shape) == len(dims) and all(-1 in (a, b) or a == b for a, b in zip(shape, dims, strict=True))


def reported(log: str) -> dict[str, int | None]:
    """Bytes that the compiler says the plan needs, by the names of `Measured`; None where it does not say.

    A plan for several cards states them for each; the largest counts.
    """
    found = {key: re.findall(rf"{phrase}: (\d+) bytes", log) for key, phrase in _PHRASES.items()}
    return {key: max(map(int, values), default=None) for key, values in found.items()}


_PHRASES = {
    "activation_bytes": "Total Activation Memory",
    "scratch_bytes": "Max Scratch Memory",
    "weight_bytes": "Total Weights Memory",
}


def last_errors(log: Path) -> str:
    """What a build log reports as an error, for a message: refused nodes, or else the last line; and the log's place."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("[E]")]
    nodes = [line for line in lines if line.startswith("[E] In node")]
    return "".join(f"\n  {line}" for line in [*(nodes[:5] or lines[-1:]), f"the whole log: {log}"])


def refit(base: Path, onnx: Path, plan: Path, log_file: Path) -> None:
    """Writes the plan `base` with the weights of another ONNX file of the same graph, as of a fused LoRA. Raises `EngineError`."""
    with log_file.open("w") as log, _logging(log):
        engine = load(base)
        if not engine.refittable:
            raise EngineError("the plan cannot be refitted; build it with --refit")
        refitter = trt.Refitter(engine, get_trt_logger())
        parser = trt.OnnxParserRefitter(refitter, get_trt_logger())
        if not parser.refit_from_file(str(onnx)):
            raise EngineError(f"{onnx}: TensorRT cannot take its weights; the reason is in {log_file}")
        missing = refitter.get_missing_weights()
        if missing:
            raise EngineError(
                f"{onnx}: has no values for {len(missing)} weights of the plan, e.g. {missing[:3]}; build instead"
            )
        if not refitter.refit_cuda_engine():
            raise EngineError(f"{onnx}: TensorRT could not exchange the weights; the reason is in {log_file}")
        # The default keeps the weights in, which is what a stripped plan is refitted for.
        serialized: Any = engine.serialize_with_config(engine.create_serialization_config())
        plan.write_bytes(memoryview(serialized))


def information(path: Path) -> dict[str, Any]:
    """The engine inspector's JSON, with the usual shapes set: without them formats of a dynamic engine are not told."""
    engine = load(path)
    inspector = engine.create_engine_inspector()
    context = engine.create_execution_context()
    for i in range(engine.num_io_tensors):
        name = engine.get_tensor_name(i)
        if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
            context.set_input_shape(name, tuple(_sizes(engine.get_tensor_profile_shape(name, 0)[1])))
    inspector.execution_context = context
    document = json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    return cast("dict[str, Any]", document)


def load(path: Path) -> trt.ICudaEngine:
    """Raises `EngineError` where the plan cannot be loaded here."""
    try:
        engine: trt.ICudaEngine = engine_from_path(str(path))
    except PolygraphyException as error:
        raise EngineError(
            f"{path}: TensorRT cannot load it: another GPU or TensorRT version built it, or memory is short"
        ) from error
    return engine


@contextmanager
def _logging(log: TextIO, layers: bool = False) -> Iterator[None]:
    """All that Polygraphy and the compiler say, but their verbose chatter, goes to `log`. `layers`: of that, what it says of them."""
    G_LOGGER.colors = False
    kept, level = (cast("TextIO", Log(log)), G_LOGGER.ULTRA_VERBOSE) if layers else (log, G_LOGGER.VERBOSE)
    with G_LOGGER.verbosity(level), redirect_stdout(kept), redirect_stderr(kept):
        yield


def _monitor(progress: Progress) -> trt.IProgressMonitor:
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


def _peak_host_bytes() -> int | None:
    """Largest resident memory of this process; unlike `getrusage`, not that of the one which started it."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else None


def compute_capabilities() -> list[int]:
    """What plans can be compiled for ahead of time, e.g. 89."""
    names = cast("Any", trt).ComputeCapability.__members__  # TensorRT for RTX alone has it
    return sorted(int(name.removeprefix("SM")) for name in names if name.startswith("SM"))
