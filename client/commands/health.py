"""Ask the running node whether it is alive, over the gRPC health protocol; exit code 0 if it serves, 1 if not.

For compose, systemd and people. The probe speaks to this machine only and needs no certificate.
"""

from __future__ import annotations

import argparse

from client.commands.files import add_center, center_of

EXAMPLE = "python -m client health --center center.yaml --wait 30"


def arguments(parser: argparse.ArgumentParser) -> None:
    add_center(parser)
    parser.add_argument("--address", help="host:port to ask instead of the file's health")
    parser.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="how long to keep trying (0)")


def run(arguments: argparse.Namespace) -> int:
    """Print one line and return 0 or 1."""
    address = arguments.address or center_of(arguments).health
    answer = probe(address, patience_s=arguments.wait)
    print(f"{address}: {answer}")
    return 0 if answer == "SERVING" else 1


def probe(address: str, *, patience_s: float = 0.0, timeout_s: float = 3.0) -> str:
    """SERVING, another state of the health protocol, or why there was no answer."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(address) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=max(patience_s, timeout_s), wait_for_ready=patience_s > 0
            )
        except grpc.RpcError as error:
            return f"no answer ({error.code().name.lower().replace('_', ' ')}), it may not be running"
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
