"""What a server promises, under everything at once: every caller gets one answer, the right one, and nothing is left behind.

A real server over a repository whose denoiser alone is replaced: it sleeps 1 ms, and 0.5 ms for each row, and what it predicts depends
on that row alone. So thousands of requests end in minutes, every picture can be compared bit for bit with the one that its request
has alone, and no time here is one of a real denoiser. Five parts:

  storm      mixed requests by many callers, unary and streams: good ones, bad input, hang-ups, schedules that cannot be run
  refusals   how long a refusal takes while every place is taken and all preparers work on the worst photographs
  tenants    one tenant floods the server and most of its callers hang up; another one asks for a picture at a time
  killed     the process of a model is killed with requests in flight
  drain      SIGTERM with requests in flight, and others that keep coming

Ends with code 1 where a promise is broken.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from export.commandline import add_variant
from faceclip_serving.contract.names import FACES, FINISH, PREPARE, SAMPLER, STREAM, UNARY
from faceclip_serving.contract.placements import CPU
from faceclip_serving.contract.variants.table import VARIANTS

from ..measure.report import emit, say
from ..measure.running import PLAIN
from ..measure.sleeping import QUICK, with_sleeping_denoiser
from .ends import drained, killed
from .refusals import refusals
from .storm import log_faults, storm
from .tenants import tenants

PLACEMENT = CPU
NOTE = "the denoiser sleeps; no time here is one of a real denoiser"
PARTS = ("storm", "refusals", "tenants", "killed", "drain")
VICTIMS = (SAMPLER, UNARY, STREAM, FACES, PREPARE, FINISH)
NOTHING = ("unanswered", "wrong", "faults", "leaked_leases", "leaked_in_metrics", "faults_in_log")
"""What there must be none of in a storm."""
AT_MOST = {"rss_slope_mb_per_1000": 30.0, "shm_growth_mb": 8.0}
"""What may grow in a storm: pools grow by whole megabytes, and with each new height of the flood."""
JUDGED_FROM = 1000
"""Requests; growth over fewer is that of pools that fill."""
REFUSAL_P99_MS = 20.0


def chaos(repository: Path, requests: int, refused: int = 400, parts: Sequence[str] = PARTS) -> dict[str, Any]:
    """The report over an assembled repository; `promises_broken` names what did not hold."""
    from server.process import Ports, TritonServer

    found: dict[str, Any] = {"note": NOTE}
    with with_sleeping_denoiser(repository, QUICK) as folder:
        if {"storm", "refusals", "tenants"} & set(parts):
            log = folder.parent / "log"
            with TritonServer(folder, Ports.free(), log=log, settings=PLAIN) as server:
                server.wait_ready()
                if "storm" in parts:
                    say(f"storm of {requests} requests")
                    found |= storm(server, requests)
                    found["died"] = server.why_ended() if server.ended else ""
                    faults = log_faults(log.read_text(errors="replace"))
                    found |= {"faults_in_log": len(faults), "first_faults_in_log": faults[:3]}
                if "refusals" in parts and not server.ended:
                    found["refusal_ms"] = refusals(server, refused)
                if "tenants" in parts and not server.ended:
                    say("a tenant floods the server")
                    found["tenants"] = tenants(server, refused // 4)
        if "killed" in parts:
            found["killed"] = []
            for model in VICTIMS:
                say(f"the process of '{model}' is killed under load")
                found["killed"].append(killed(folder, model))
        if "drain" in parts:
            say("SIGTERM under load")
            found["drain"] = drained(folder)
    return {**found, "promises_broken": broken(found)}


def broken(found: Mapping[str, Any]) -> list[str]:
    """The promises that did not hold, in words."""
    promises = [(f"{name} is 0, not {found[name]}", found[name] == 0) for name in NOTHING if found.get(name) is not None]
    for name, most in AT_MOST.items():
        if found.get(name) is not None and found["requests"] >= JUDGED_FROM:
            promises.append((f"{name} is at most {most}, not {found[name]}", found[name] <= most))
    if "died" in found:
        promises.append((f"the server lives, but: {found['died']}", not found["died"]))
    if "refusal_ms" in found:
        refusal = found["refusal_ms"]
        promises.append(
            (f"p99 of refusals is at most {REFUSAL_P99_MS} ms, not {refusal['p99']}", refusal["p99"] <= REFUSAL_P99_MS)
        )
        promises.append((f"nobody beside the refused is failed, not {refusal['faults']}", refusal["faults"] == 0))
    if "tenants" in found:
        told = found["tenants"]
        for name in ("refused", "wrong_or_missing"):
            promises.append((f"beside a flood, of another tenant's requests {name} are 0, not {told[name]}", told[name] == 0))
        own, others = told["seconds_p50"], told["seconds_p50_of_the_flood"]
        promises.append((f"a flood delays itself first, not {own} s beside its own {others} s", own < others))
    for each in found.get("killed", ()):
        what = f"when '{each['model']}' is killed"
        promises.append((f"{what}, nobody is left unanswered, not {each['unanswered']}", each["unanswered"] == 0))
        promises.append((f"{what}, the server ends with code 1, not {each['exit_code']}", each["exit_code"] == 1))
    if "drain" in found:
        drain = found["drain"]
        for name in ("wrong_or_missing", "later_faults", "exit_code"):
            promises.append((f"drain: {name} is 0, not {drain[name]}", drain[name] == 0))
    return [text for text, holds in promises if not holds]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_variant(parser)
    parser.add_argument("--requests", type=int, default=5000, help="of the storm (default: %(default)s)")
    parser.add_argument("--refusals", type=int, default=400, help="whose times are taken (default: %(default)s)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="(default: all)")


def run(args: argparse.Namespace) -> int:
    from export.repository.from_nothing import build_repository  # torch

    variant = VARIANTS[args.variant]
    found = chaos(build_repository(variant, PLACEMENT), args.requests, args.refusals, args.parts)
    emit(f"chaos-{variant.name}", {"variant": variant.name, **found})
    for text in found["promises_broken"]:
        say(f"broken: {text}")
    return 1 if found["promises_broken"] else 0
