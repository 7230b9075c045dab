"""No network but the federation's own: switches that must be set before Flower, Ray or transformers are imported."""

from __future__ import annotations

import os
from collections.abc import Mapping

SWITCHES = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "OMP_NUM_THREADS": "1",
}


LOOPBACK = ("127.0.0.1", "localhost", "::1")


def go_offline() -> None:
    """Set every switch that the user has not set, and keep this machine's own addresses off a proxy."""
    for name, value in SWITCHES.items():
        os.environ.setdefault(name, value)
    os.environ.update(without_proxy(os.environ))


def without_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """``NO_PROXY``, in both spellings, with loopback added.

    Processes of one machine talk there in plain words, which no proxy can pass on and none should see.
    """
    written = [environment.get(name, "") for name in ("no_proxy", "NO_PROXY")]
    hosts = [host.strip() for text in written for host in text.split(",") if host.strip()]
    if "*" in hosts:
        return dict.fromkeys(("no_proxy", "NO_PROXY"), "*")
    return dict.fromkeys(("no_proxy", "NO_PROXY"), ",".join(dict.fromkeys([*hosts, *LOOPBACK])))
