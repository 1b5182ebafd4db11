"""What Envoy keeps of calls, and what it does where that becomes too much: one caller shall not end the proxy of all."""

from __future__ import annotations

from typing import Any

MOST_REQUEST_BYTES = 320 * 2**20
"""Of one call, kept until its first answer so that it can be sent again: six files of the most that a server reads, in
base64, are 256 MiB; the rest is for masks of people, an identity, texts and names. It takes up to twice as much of Envoy's memory."""
HEAP = (3, 4)
"""Part of its memory that is for calls; the rest is the program's own, and what comes in until it looks again."""
LOOK_EVERY = "0.1s"
RESET_AT, REFUSE_AT = 0.85, 0.95
"""Parts of the heap: from the first on those that hold most are reset, and ever smaller ones up to the second, from which on new calls are
refused. In this order, since whoever refuses first and resets nothing refuses until somebody hangs up."""
TRACKED_FROM_POWER_OF_TWO = 20
"""Calls of less than 2^20 bytes are never reset."""
MOST_CONNECTIONS = 10_000
"""Of callers; further ones are closed as they come. Each takes a file, and some tens of KiB."""
_MONITOR = "envoy.resource_monitors.fixed_heap"
_CONNECTIONS = "envoy.resource_monitors.global_downstream_max_connections"
_CONFIG = "type.googleapis.com/envoy.extensions.resource_monitors"
_HEAP_CONFIG = f"{_CONFIG}.fixed_heap.v3.FixedHeapConfig"
_CONNECTIONS_CONFIG = f"{_CONFIG}.downstream_connections.v3.DownstreamConnectionsConfig"


def overload(memory_gib: int) -> dict[str, Any]:
    """Envoy's overload manager, for a process that may take so much memory."""
    heap_bytes = memory_gib * 2**30 * HEAP[0] // HEAP[1]
    shrink, refuse = {"threshold": {"value": RESET_AT}}, {"threshold": {"value": REFUSE_AT}}
    reset = {"scaled": {"scaling_threshold": RESET_AT, "saturation_threshold": REFUSE_AT}}
    actions = {"shrink_heap": shrink, "stop_accepting_requests": refuse, "reset_high_memory_stream": reset}
    connections = {"@type": _CONNECTIONS_CONFIG, "max_active_downstream_connections": MOST_CONNECTIONS}
    return {
        "refresh_interval": LOOK_EVERY,
        "buffer_factory_config": {"minimum_account_to_track_power_of_two": TRACKED_FROM_POWER_OF_TWO},
        "resource_monitors": [
            {"name": _MONITOR, "typed_config": {"@type": _HEAP_CONFIG, "max_heap_size_bytes": heap_bytes}},
            {"name": _CONNECTIONS, "typed_config": connections},
        ],
        "actions": [
            {"name": f"envoy.overload_actions.{name}", "triggers": [{"name": _MONITOR, **when}]}
            for name, when in actions.items()
        ],
    }
