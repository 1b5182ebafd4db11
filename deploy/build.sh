#!/bin/sh
# Inside the image, on the GPU that will serve: ONNX files -> engines, verified and looked through -> the repository.
#   sh deploy/build.sh VARIANT PLACEMENT [OPTION of `export engine`...]
#   ENGINES=no sh deploy/build.sh VARIANT PLACEMENT [OPTION of `export repository`...]    without a GPU: a placement without engines
# REPOSITORY: the folder that is made (default: build/VARIANT-PLACEMENT). ONNX: the folder of what was exported (default: build/onnx).
set -eu
variant="${1:?expected a variant, e.g. sdxl}"
placement="${2:?expected a placement, e.g. 8gb}"
shift 2
repository="${REPOSITORY:-build/$variant-$placement}"
# Of plans: the image has TensorRT proper, and Triton's own backend for it.
step() {
    command="$1"
    shift
    python3 -m export "$command" --variant "$variant" --placement "$placement" --components "${ONNX:-build/onnx}/$variant" \
        --runtime tensorrt "$@"
}
if [ "${ENGINES:-yes}" = no ]; then
    step repository --output "$repository" "$@"
    exec python3 -m export inspect --repository "$repository"
fi
step engine "$@"
step verify
step inspect
step repository --output "$repository"
