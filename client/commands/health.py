"""Ask the running node whether it is alive and when the coordinator last answered it; exit code 0 if all is well.

For compose, systemd and people. The probe speaks to this machine only and needs no certificate. A node that serves but
has not reached the coordinator for --within minutes is not well: exit code 1.
"""

from __future__ import annotations

import argparse
import time
from datetime import datetime
from pathlib import Path

from client.commands.files import add_center, center_of

EXAMPLE = "python -m client health --center center.yaml --wait 30 --within 10"


def arguments(parser: argparse.ArgumentParser) -> None:
    add_center(parser)
    parser.add_argument(
        "--address", help="host:port to ask instead of the file's health; then nothing else is looked at"
    )
    parser.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="how long to keep trying (0)")
    parser.add_argument(
        "--within", type=float, default=10.0, metavar="MINUTES", help="fail without an answer for longer than this (10)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print one line, or two, and return 0 or 1."""
    if arguments.address:
        answer = probe(arguments.address, patience_s=arguments.wait)
        print(f"{arguments.address}: {answer}")
        return 0 if answer == "SERVING" else 1
    config = center_of(arguments)
    answer = probe(config.health, patience_s=arguments.wait)
    print(f"{config.health}: {answer}")
    sentence, fresh = contact(arguments.center, config.code, within_minutes=arguments.within, now=time.time())
    if sentence:
        print(sentence)
    return 0 if answer == "SERVING" and fresh else 1


def contact(center: Path, code: str, *, within_minutes: float, now: float) -> tuple[str, bool]:
    """When the coordinator last answered, in words, and whether that is recent enough.

    Args:
        now: seconds since 1970.
    """
    from client.node.node import home_of, last_contact

    found = last_contact(home_of(center.resolve(), code))
    if found is None:
        return "", True
    moment, ever = found
    ago, when = (now - moment) / 60, f"{datetime.fromtimestamp(moment):%Y-%m-%d %H:%M}"
    fresh = ago <= within_minutes
    late = "" if fresh else f", more than {within_minutes:g} minutes: ask your IT for the way out, and the coordinator"
    if ever:
        return f"coordinator: last answered {when}, {ago:.0f} minutes ago{late}", fresh
    return f"coordinator: no answer since the node started {when}, {ago:.0f} minutes ago{late}", fresh


def probe(address: str, *, patience_s: float = 0.0, timeout_s: float = 3.0) -> str:
    """SERVING, another state of the health protocol, or why there was no answer."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:  # this machine only
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=max(patience_s, timeout_s), wait_for_ready=patience_s > 0
            )
        except grpc.RpcError as error:
            return f"no answer ({error.code().name.lower().replace('_', ' ')}), it may not be running"
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
