#!/bin/sh
# Inside the image, on the GPU that will serve: ONNX files of build/onnx -> engines, verified and looked through -> the repository.
#   sh deploy/build.sh VARIANT [OPTION of `export engine`...]
set -eu
variant="${1:?expected a variant, e.g. sdxl}"
shift
python3 -m export engine --variant "$variant" "$@"
python3 -m export verify --variant "$variant"
python3 -m export inspect --variant "$variant"
python3 -m export repository --variant "$variant" --profile tensorrt
