#!/bin/sh
# What the container runs.
#   serve [OPTION...]   `python3 -m server run` over $FACECLIP_REPOSITORY; it takes its own options and tritonserver's  (default)
#   options             the options that `serve` adds for tritonserver, one per line
#   export ARGUMENT...  python3 -m export, e.g. `export engine --variant sdxl`
# FACECLIP_ADMIN_KEY opens what is restricted, as the header `triton-grpc-protocol-admin-key` (HTTP:
# `admin-key`). Without one a random key is made that nobody knows: then it stays closed.
set -eu

# NVIDIA's own entry point prepares the libraries of a newer CUDA on an older driver, then runs what it is given.
NVIDIA="${FACECLIP_NVIDIA_ENTRYPOINT-/opt/nvidia/nvidia_entrypoint.sh}"
if [ "${1:-serve}" != options ] && [ -z "${FACECLIP_PREPARED:-}" ] && [ -f "$NVIDIA" ]; then
    export FACECLIP_PREPARED=1
    exec bash "$NVIDIA" sh "$0" "$@"
fi

# Left open: model-config and the index of models, by which clients find a model and its limits. Loading and unloading, which go
# by the same name, are off in control mode `none`. Behind a proxy that needs neither, FACECLIP_RESTRICTED adds them.
RESTRICTED=shared-memory,trace,logging,statistics
for each in $(printf %s "${FACECLIP_RESTRICTED:-}" | tr , ' '); do
    case ",$RESTRICTED," in
    *",$each,"*) ;; # Triton refuses a name that comes twice
    *) RESTRICTED="$RESTRICTED,$each" ;;
    esac
done

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
    # shellcheck disable=SC2046 # one word per option is meant; a key has no spaces
    exec python3 -m server run "$FACECLIP_REPOSITORY" --address 0.0.0.0 $(options) "$@"
    ;;
options) options ;;
export) exec python3 -m export "$@" ;;
*) exec "$command" "$@" ;;
esac
