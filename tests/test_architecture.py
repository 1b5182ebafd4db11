"""Data flows one way: a room imports only from rooms before it. Declarations import no behaviour, light commands nothing heavy."""

import subprocess
import sys
from functools import cache

import pytest

from tests.rooms import ROOT, arrows, imported, modules, room

ORDER = (
    "faceclip_serving",
    "faceclip_serving.contract",
    "faceclip_serving.face",
    "faceclip_serving.sampling",
    "faceclip_serving.models",
    "model_repository",
    "export",  # the paths and the command line that its rooms share
    "export.checkpoint",
    "export.networks.faceclip",
    "export.networks",
    "export.onnx",
    "export.quantize",
    "export.engine",
    "export.forecast",
    "export.repository",
    "server",
    "faceclip",
    "training.world",
    "training",
    "benchmarks.measure",
    "benchmarks.memory",
    "benchmarks.speed",
    "benchmarks.quality",
    "benchmarks.gpu",
    "benchmarks",
    "examples",
    "deploy",
)
ALONE = {
    "faceclip": set(),
    "deploy": set(),
    "training.world": set(),
    "server": {"faceclip_serving.contract"},
    "faceclip_serving.contract": set(),
}
"""Rooms that import nothing of ours but these."""
STARTS = ("export.__main__", "benchmarks.__main__", "training.__main__")
"""Where programs start: they may name any room of their package."""

KNOWN = modules()


@cache
def found():
    return arrows({name: path for name, path in KNOWN.items() if name not in STARTS})


def test_every_room_has_its_place_in_the_order():
    assert {room(name, path) for name, path in KNOWN.items()} == set(ORDER)


@pytest.mark.parametrize("name", ORDER)
def test_a_room_imports_only_from_rooms_before_it(name):
    allowed = ALONE.get(name, set(ORDER[: ORDER.index(name)]))
    wrong = {pair: files for pair, files in found().items() if pair[0] == name and pair[1] not in allowed}
    assert not wrong, f"these imports run back: {wrong}"


def test_no_module_imports_itself_through_others():
    def reach(module, seen):
        for target in set(imported(module, KNOWN[module], KNOWN)) - {module}:
            assert target not in seen, f"a circle: {' -> '.join((*seen, target))}"
            if target not in done:
                reach(target, (*seen, target))
        done.add(module)

    done = set()
    for module in KNOWN:
        if module not in done:
            reach(module, (module,))


def test_the_models_of_the_repository_import_only_the_shared_code():
    for (source, target), files in found().items():
        if source == "model_repository":
            assert target.startswith("faceclip_serving"), files


def loaded(statement):
    """Top-level packages that a fresh interpreter has after a statement."""
    code = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_declarations_need_numpy_alone():
    names = [name for name, path in KNOWN.items() if room(name, path) == "faceclip_serving.contract"]
    assert len(names) > 10
    heavy = loaded("import " + ", ".join(names)) - loaded("import numpy") - set(sys.stdlib_module_names)
    assert heavy == {"faceclip_serving"}


def test_torch_is_needed_by_the_sampler_alone():
    """Every other model of the server starts without its weight. Metrics and the adapter live in Triton's process alone."""
    names = ["prepare", "finish", "streaming", "prompts", "onnx_component", "encoding_cache"]
    assert not loaded("import " + ", ".join(f"faceclip_serving.models.{name}" for name in names)) & {"torch", "diffusers"}
    stub = "sys.modules['triton_python_backend_utils'] = type(sys)('stub'); "
    names = ["adapter", "onnx_model"]
    assert not loaded(stub + "import " + ", ".join(f"faceclip_serving.models.{name}" for name in names)) & {
        "torch",
        "diffusers",
    }
