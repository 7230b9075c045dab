"""A coordinator's state for Prometheus, by prometheus-client: one file for node_exporter's textfile collector.

Nothing listens for it: the one open port stays the hospitals'. No patient and no count of patients is in it.
"""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from common.files import write_bytes
from server.deploy.status import Status


def metrics_text(found: Status) -> bytes:
    """The state in Prometheus' text format."""
    registry = CollectorRegistry()

    def gauge(name: str, says: str, *labels: str) -> Gauge:
        return Gauge(f"fedgraft_{name}", says, labels, registry=registry)

    gauge("serving", "1 where the SuperLink answers").set(float(found.is_serving))
    gauge("certificate_days", "Days until the server's certificate ends").set(found.certificate_days)
    online = gauge("hospital_online", "1 where the hospital's node is online", "hospital")
    for code, state in found.hospitals.items():
        online.labels(code).set(float(state == "online"))
    done = gauge("round", "Finished rounds of the step under way", "run", "step")
    rounds = gauge("rounds", "Rounds of the step under way", "run", "step")
    sent = gauge("message_bytes", "Bytes of a run's messages, both ways", "run")
    for run in found.runs:
        done.labels(run.name, run.step).set(run.round)
        rounds.labels(run.name, run.step).set(run.rounds)
        sent.labels(run.name).set(run.bytes)
    return generate_latest(registry)


def write_metrics(path: Path, found: Status) -> None:
    """The same as a file, whole at any moment: the collector reads it whenever it likes."""
    write_bytes(path, metrics_text(found))
