"""Data flows one way: a room imports only from rooms before it. Declarations import no behaviour, light commands nothing heavy."""

import subprocess
import sys
from functools import cache

import pytest

from tests.rooms import ROOT, arrows, imported, modules, room

CONTRACT = {"faceclip_serving.contract", "faceclip_serving.contract.variants"}
MARKING, CHECKS, AUDIT = (f"faceclip_serving.{name}" for name in ("marking", "checks", "audit"))
SERVING = CONTRACT | {
    "faceclip_serving", "faceclip_serving.face", MARKING, CHECKS, AUDIT, "faceclip_serving.sampling", "faceclip_serving.models"
}  # fmt: skip
TO_ONNX = {"export", "export.checkpoint", "export.networks.faceclip", "export.networks", "export.onnx"}
EXPORT = TO_ONNX | {"export.quantize", "export.engine", "export.forecast", "export.repository"}
CLIENT = {"faceclip", "faceclip.language", "faceclip.recipes"}
MEASURING = SERVING | EXPORT | {"server", "faceclip", "benchmarks.measure"}
TRAINING = {"training", "training.world", "training.pictures", "training.networks", "training.learning"}
MAY_IMPORT = {
    "faceclip_serving": set(),
    "faceclip_serving.contract": {"faceclip_serving.contract.variants"},  # one declaration in two folders
    "faceclip_serving.contract.variants": {"faceclip_serving.contract"},
    "faceclip_serving.face": CONTRACT,
    "faceclip_serving.sampling": CONTRACT | {"faceclip_serving.face"},
    MARKING: CONTRACT,
    AUDIT: CONTRACT | {MARKING},
    CHECKS: CONTRACT | {"faceclip_serving.face"},
    "faceclip_serving.models": CONTRACT
    | {"faceclip_serving", "faceclip_serving.face", MARKING, CHECKS, AUDIT, "faceclip_serving.sampling"},
    "model_repository": SERVING - {"faceclip_serving"},
    "export": CONTRACT | {"faceclip_serving"},  # the paths and the command line that its rooms share
    "export.checkpoint": CONTRACT | {"export"},
    "export.networks.faceclip": CONTRACT | {"export.checkpoint"},
    "export.networks": CONTRACT | {"export.checkpoint", "export.networks.faceclip"},
    "export.onnx": SERVING | TO_ONNX - {"export.onnx"},
    "export.quantize": SERVING | TO_ONNX,
    "export.engine": SERVING | TO_ONNX,
    "export.recogniser": CONTRACT | {"export"},
    "export.translator": CONTRACT | {"export", "export.checkpoint"},
    "export.forecast": CONTRACT | {"export", "export.onnx", "export.engine"},
    "export.repository": SERVING | TO_ONNX | {"export.engine"},
    "server": CONTRACT | {"server.fleet", "faceclip_serving", "faceclip_serving.face", MARKING, CHECKS, AUDIT},
    "server.fleet": CONTRACT | {"faceclip_serving", "server", "server.fleet.envoy"},
    "server.fleet.envoy": CONTRACT | {"server"},
    "faceclip": {"faceclip.marks", "faceclip.language", "faceclip.recipes"},
    "faceclip.language": {"faceclip", "faceclip.language.chinese"},  # of the client its errors, as in recipes
    "faceclip.language.chinese": {"faceclip.language"},
    "faceclip.recipes": {"faceclip"},
    "faceclip.marks": set(),
    "training.world": set(),
    "training": CONTRACT | {"export"},
    "training.pictures": CONTRACT | {"export", "faceclip_serving.face", "training", "training.world"},
    "training.networks": SERVING | {"export", "export.networks.faceclip", "training"},
    "training.learning": SERVING | {"export", "export.networks.faceclip"} | TRAINING - {"training.learning"},
    "training.run": SERVING | {"export", "export.checkpoint", "export.networks.faceclip"} | TRAINING,
    "benchmarks.measure": SERVING | EXPORT | {"server", "faceclip"},
    "benchmarks.memory": MEASURING,
    "benchmarks.speed": MEASURING,
    "benchmarks.chaos": MEASURING,
    "benchmarks.quality": MEASURING | TRAINING | {"training.run"},
    "benchmarks.gpu": MEASURING,
    "benchmarks.marks": MEASURING,
    "benchmarks.checks": MEASURING,
    "benchmarks.audit": MEASURING,
    "benchmarks.gateway": MEASURING,
    "benchmarks.fleet": MEASURING | {"server.fleet"},
    "benchmarks.studio": MEASURING | {"benchmarks.gateway"},
    "benchmarks.placements": MEASURING,
    "benchmarks.mutants": CONTRACT | {"export", "benchmarks.measure"},
    "benchmarks": {"export"},
    "examples": MEASURING | {"faceclip.recipes", "gateway"},
    "deploy": set(),
    # The gateway runs in an image of its own: it knows the client alone. Its rooms share the files beside them.
    "gateway": CLIENT,
    "gateway.web": {"gateway"},
    "gateway.backends": CLIENT | {"gateway"},
    "gateway.keys": CLIENT | {"gateway", "gateway.backends"},
    "gateway.jobs": CLIENT
    | {"gateway", "gateway.api", "gateway.jobs.kept", "gateway.jobs.webhooks", "gateway.keys", "gateway.web"},
    "gateway.jobs.kept": CLIENT | {"gateway", "gateway.jobs"},
    "gateway.jobs.webhooks": {"gateway.jobs"},
    "gateway.words": CLIENT | {"gateway", "gateway.api", "gateway.keys", "gateway.web"},
    "gateway.api": CLIENT | {"gateway", "gateway.keys", "gateway.web"},
}
"""Room -> the rooms that it may import, itself left out."""
BY_NAME = {
    "export.commandline",
    "benchmarks.measure.gpu",
    "benchmarks.measure.sleeping_denoiser",
    "benchmarks.mutants.worker",
    "faceclip_serving.contract.functions",
}
"""Modules that import by a name which is not in their text: commands of a table, what may be missing, what tests load, operators' code."""
STARTS = (
    "export.__main__",
    "benchmarks.__main__",
    "training.__main__",
    "training.contact_sheet",
    "training.resumability",
    "gateway.__main__",
    "gateway.app",
    "gateway.state",
    "gateway.serve",
)
"""Where programs start: they may name any room of their package."""

KNOWN = modules()


@cache
def found():
    return arrows({name: path for name, path in KNOWN.items() if name not in STARTS})


def test_every_room_is_known():
    assert {room(name, path) for name, path in KNOWN.items()} == set(MAY_IMPORT)


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_a_room_imports_only_what_it_may(name):
    wrong = {pair: files for pair, files in found().items() if pair[0] == name and pair[1] not in MAY_IMPORT[name]}
    assert not wrong, f"imports that run back, or to a neighbour: {wrong}"


def test_imports_by_name_are_few_and_known():
    texts = {name: path.read_text() for name, path in KNOWN.items()}
    assert {name for name, text in texts.items() if "import_module(" in text or "__import__(" in text} == BY_NAME


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
    names = ["adapter", "front", "holder", "lanes"]
    assert not loaded(stub + "import " + ", ".join(f"faceclip_serving.models.{name}" for name in names)) & {
        "torch",
        "diffusers",
    }
