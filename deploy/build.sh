#!/bin/sh
# Inside the image, on the GPU that will serve: ONNX files of build/onnx -> engines, verified and looked through -> the repository.
#   sh deploy/build.sh VARIANT PLACEMENT [OPTION of `export engine`...]
#   ENGINES=no sh deploy/build.sh VARIANT PLACEMENT [OPTION of `export repository`...]    without a GPU: a placement without engines
set -eu
variant="${1:?expected a variant, e.g. sdxl}"
placement="${2:?expected a placement, e.g. 8gb}"
shift 2
# Of plans: the image has TensorRT proper, and Triton's own backend for it.
set -- --runtime tensorrt "$@"
if [ "${ENGINES:-yes}" = no ]; then
    made="$(python3 -m export repository --variant "$variant" --placement "$placement" "$@")"
    folder="$(printf %s "$made" | python3 -c 'import json, sys; print(json.load(sys.stdin)["repository"])')"
    exec python3 -m export inspect --repository "$folder"
fi
python3 -m export engine --variant "$variant" --placement "$placement" "$@"
python3 -m export verify --variant "$variant" --placement "$placement" --runtime tensorrt
python3 -m export inspect --variant "$variant" --placement "$placement" --runtime tensorrt
python3 -m export repository --variant "$variant" --placement "$placement" --runtime tensorrt
