# `make demo` makes a picture on a fresh machine, `make test` passes the tests on one. `make help` lists the rest.
PYTHON  ?= python3
VARIANT ?= nano
# PROFILE is the old spelling of PLACEMENT.
PROFILE ?= cpu
PLACEMENT ?= $(PROFILE)
# On a machine without a GPU: make setup PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PIP_FLAGS ?=
# More of `python -m server run` for serve, of `python -m gateway run` for studio, and of `python -m benchmarks gpu-verify`, e.g. OPTIONS="--http-port 8010 --grpc-port 8011"
OPTIONS ?=

# For check-tensorrt: folders that each hold tensorrt/__init__.pyi, one per version of TensorRT.
TENSORRT_STUBS ?=
STUBS := .mypy_cache/stubs
STRICT := --config-file= --strict --python-version 3.11 --explicit-package-bases --follow-imports=silent --no-warn-unused-ignores \
  --disable-error-code=import-untyped --disable-error-code=import-not-found
RTX_CODE := $(wildcard export/engine/*.py) faceclip_serving/models/trt_component.py faceclip_serving/models/tensorrt_package.py

VENV := .venv
RUN  := $(VENV)/bin/python
# EMULATE=1 serves PLACEMENT on a machine without its card, on ONNX Runtime's CPU provider.
EMULATE ?=
REPOSITORY := build/$(VARIANT)-$(PLACEMENT)$(if $(EMULATE),-emulated)

# For bench-gpu: a placement of the card (python -m export forecast --variant sdxl).
GPU_PROFILE ?= gpu-ort
GPU_PLACEMENT ?= $(GPU_PROFILE)
# For gpu-verify: compute capabilities to compile for, e.g. SM=86,89,120 (default: the card's).
SM ?=
# Tests run in so many processes, one more than two cores since they wait a third of the time; each starts servers, some GB.
WORKERS ?= 3
AT_ONCE := --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder
# Folder of the official weights, where VARIANT has them.
CHECKPOINT  ?=
WEIGHTS := $(if $(CHECKPOINT),--checkpoint $(CHECKPOINT))
# LoRA files to fuse into the weights, with their scales: LORA="style.safetensors:0.8 other.safetensors"
LORA ?=

# Where the environment says that no bytecode be kept, each process that is started here would compile all libraries for itself.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup check check-deploy check-tensorrt test proofs demo studio gateway machine export repository serve bench bench-gpu gpu-verify clean
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile
	@echo "  variables: VARIANT=$(VARIANT) PLACEMENT=$(PLACEMENT) PYTHON=$(PYTHON)"

setup: $(VENV)/.installed ## own virtual environment with everything

$(VENV)/.installed: requirements.txt gateway/requirements.txt deploy/requirements-check.txt client/pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(f"CPython 3.11 or 3.12 is needed, for which the pinned packages exist; this is {sys.version.split()[0]}: make setup PYTHON=python3.12" if sys.version_info[:2] not in ((3, 11), (3, 12)) else 0)'
	$(PYTHON) -m venv $(VENV)
	# Without --no-compile this takes twice as long: bytecode of what is imported is written when it is imported.
	$(RUN) -m pip install --quiet --no-compile $(PIP_FLAGS) -r requirements.txt -r gateway/requirements.txt \
	  -r deploy/requirements-check.txt
	$(RUN) -m pip install --quiet --no-compile --no-deps nvidia-pytriton==0.7.0
	$(RUN) -m pip install --quiet --no-deps --editable client
	# The server's Python writes no bytecode, so what it alone imports is compiled here.
	$(RUN) -m compileall -q -j 0 $(VENV)/lib/python3.*/site-packages/scipy $(VENV)/lib/python3.*/site-packages/diffusers/schedulers
	touch $@

demo: setup ## one person in four scenes, from nothing: out/demo.png; PHOTO=me.jpg PROMPT="..." for your own
	@$(RUN) -m examples.demo --variant $(VARIANT) $(if $(PHOTO),--photo "$(PHOTO)") $(if $(PROMPT),--prompt "$(PROMPT)")

studio: setup ## a server, the gateway before it and its page, from nothing: http://127.0.0.1:8080; Ctrl-C stops both
	@$(RUN) -m examples.studio --variant $(VARIANT) $(OPTIONS)

gateway: studio ## the same

check: setup ## lint and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

check-tensorrt: setup ## types of the engine code against TensorRT for RTX, and each TensorRT in TENSORRT_STUBS
	# Declarations of TensorRT for RTX are read from the installed package.
	@$(VENV)/bin/stubgen -q -p tensorrt_rtx -p tensorrt_rtx_bindings -o $(STUBS)/rtx
	# Some of its signatures are loose, and one is no Python: a parameter without a default after those with one.
	@sed -i -e '1i # mypy: ignore-errors' -e '/def add_scale_nd/d' $(STUBS)/rtx/tensorrt_rtx*/*.pyi
	@echo "tensorrt_rtx: $(RTX_CODE)"
	@MYPYPATH=$(CURDIR):$(STUBS)/rtx $(VENV)/bin/mypy $(STRICT) --cache-dir $(STUBS)/rtx/cache $(RTX_CODE)
	@for stubs in $(TENSORRT_STUBS); do \
	  test -f $$stubs/tensorrt/__init__.pyi || { echo "$$stubs: no tensorrt/__init__.pyi there" >&2; exit 2; }; \
	  echo "$$(grep -o "__version__.*" $$stubs/tensorrt/__init__.pyi): export/engine/*.py"; \
	  own=$(STUBS)/$$(echo $$stubs | cksum | cut -d' ' -f1); mkdir -p $$own; \
	  : 'The one code, against this TensorRT in the place of the other.'; \
	  ln -sfn $$(realpath $$stubs)/tensorrt $$own/tensorrt_rtx; \
	  MYPYPATH=$(CURDIR):$$own:$$stubs $(VENV)/bin/mypy $(STRICT) --cache-dir $$own/cache export/engine/*.py || exit 1; \
	done

check-deploy: setup ## what is in deploy/, by the tools that read it: helm, envoy, promtool, schemas; says how to get what is missing
	$(RUN) -m pytest tests/deploy -m "not server" -rs

test: setup ## tests, the real server included, but for those that take longest
	$(RUN) -m pytest -m "not proof" $(AT_ONCE)

proofs: setup ## the tests that take longest: every placement, restarts, compiled engines, browsers
	$(RUN) -m pytest -m proof $(AT_ONCE)

machine: setup ## whether this machine can serve PLACEMENT: packages, driver, card, memory
	@$(RUN) -m export machine --variant $(VARIANT) --placement $(PLACEMENT) $(if $(EMULATE),--emulate) > /dev/null

export: machine ## VARIANT's components to ONNX, as PLACEMENT needs them, with parity
	$(RUN) -m export onnx --variant $(VARIANT) --placement $(PLACEMENT) $(if $(EMULATE),--emulate) $(WEIGHTS) $(foreach lora,$(LORA),--lora $(lora))

repository: export ## build/VARIANT-PLACEMENT, ready for Triton, with engines for the card that is here
	$(RUN) -m export repository --engines --variant $(VARIANT) --placement $(PLACEMENT) $(if $(EMULATE),--emulate) $(WEIGHTS) --output $(REPOSITORY)

serve: repository ## the server on loopback; Ctrl-C stops it
	$(RUN) -m server run $(REPOSITORY) $(OPTIONS)

bench: setup ## parity, overhead, memory, latency and peers on this machine
	$(RUN) -m benchmarks parity --variant $(VARIANT)
	$(RUN) -m benchmarks overhead --variant $(VARIANT)
	$(RUN) -m benchmarks vram --variant $(VARIANT) --placement $(PLACEMENT)
	$(RUN) -m benchmarks latency --variant $(VARIANT) --placement $(PLACEMENT)
	$(RUN) -m benchmarks compare --variant $(VARIANT) --placement $(PLACEMENT)

bench-gpu: setup ## one report file of this GPU to share: forecast, memory, latency, peers
	$(RUN) -m benchmarks report --variant $(VARIANT) --placement $(GPU_PLACEMENT) $(WEIGHTS)

gpu-verify: setup ## VARIANT on this GPU: build, parity, picture, times, memory; one report to share. SM=86,89 without a GPU
	$(RUN) -m benchmarks gpu-verify --variant $(VARIANT) $(if $(filter-out cpu,$(PLACEMENT)),--placement $(PLACEMENT)) $(if $(SM),--sm $(SM)) $(WEIGHTS) $(OPTIONS)

clean: ## deletes build/, all exports and repositories in it, and the demo's picture; other files in out/ stay
	rm -rf build
	rm -f out/demo.png
	@if [ -d out ]; then rmdir --ignore-fail-on-non-empty out; fi
