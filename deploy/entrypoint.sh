#!/bin/sh
# What the container runs.
#   serve [OPTION...]   the server over $FACECLIP_REPOSITORY; further options go to tritonserver   (default)
#   options             the options that `serve` gives to tritonserver, one per line
#   export ARGUMENT...  python3 -m export, e.g. `export engine --variant sdxl`
# FACECLIP_ADMIN_KEY opens what is restricted, as the header `triton-grpc-protocol-admin-key` (HTTP:
# `admin-key`). Without one a random key is made that nobody knows: then it stays closed.
set -eu

# Left open: model-config and the index of models, by which clients find a model and its limits. Loading and unloading, which go
# by the same name, are off in control mode `none`. Behind a proxy that needs neither, add them: FACECLIP_RESTRICTED.
RESTRICTED="${FACECLIP_RESTRICTED:-shared-memory,trace,logging,statistics}"

admin_key() {
    if [ -n "${FACECLIP_ADMIN_KEY:-}" ]; then
        printf %s "$FACECLIP_ADMIN_KEY"
    else
        od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
    fi
}

options() {
    key="$(admin_key)"
    # A colon before the key: the comma that the server's --help shows is not understood.
    cat <<END
--model-control-mode=none
--disable-auto-complete-config
--exit-timeout-secs=60
--grpc-restricted-protocol=$RESTRICTED:admin-key=$key
--http-restricted-api=$RESTRICTED:admin-key=$key
END
}

command="${1:-serve}"
[ $# -eq 0 ] || shift
case "$command" in
serve)
    # An engine of another GPU or TensorRT would fail late and obscurely; this says which, and what to do.
    python3 -m export inspect --repository "$FACECLIP_REPOSITORY"
    # The models' Python imports from the working directory first, where it must not find this project's own sources.
    cd "$FACECLIP_REPOSITORY"
    # shellcheck disable=SC2046 # one word per option is meant; a key has no spaces
    exec tritonserver --model-repository="$FACECLIP_REPOSITORY" $(options) "$@"
    ;;
options) options ;;
export) exec python3 -m export "$@" ;;
*) exec "$command" "$@" ;;
esac
