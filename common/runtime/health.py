"""Whether a gRPC health service says that it serves: what compose, systemd and monitoring ask."""

from __future__ import annotations

from common.errors import FedgraftError

PATIENCE_S = 3.0


def check_serving(address: str, *, what: str, timeout_s: float = PATIENCE_S) -> None:
    """Raise FedgraftError unless the health service at ``host:port`` answers SERVING."""
    import grpc
    from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
    from grpc_health.v1.health_pb2_grpc import HealthStub

    try:
        with grpc.insecure_channel(address) as channel:
            status = HealthStub(channel).Check(HealthCheckRequest(), timeout=timeout_s).status
    except grpc.RpcError as error:
        raise FedgraftError(f"{what} at {address} does not answer: {error.code().name.lower()}.") from error
    if status != HealthCheckResponse.SERVING:
        raise FedgraftError(f"{what} at {address} says {HealthCheckResponse.ServingStatus.Name(status)}.")
