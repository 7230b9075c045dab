"""The coordinator's executor: it runs this checkout's ServerApp, and only for a bundle of the same code."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from queue import Queue
from typing import Any

import httpx
from flwr.common.constant import SubStatus
from flwr.supercore.constant import TaskType

from common.errors import WireError
from common.runtime.executor import TaskAccess, log_to_own_file, run_in_flower, serve
from common.runtime.release import ROOT, bundle_digest

PROGRAM = "flwr.superlink.runtime.run_serverapp"
PRELOAD = ["server.deploy.executor", PROGRAM, "server.curriculum"]


def run_task(access: TaskAccess) -> None:
    """One run, from the SuperLink's input to its output; runs in a process of its own."""
    log_to_own_file()
    os.chdir(ROOT)  # configurations name files relative to the checkout

    def inspect(bundle: bytes) -> None:
        if bundle_digest(bundle) != access.release:
            raise WireError("This run's bundle is not the code of this coordinator's checkout; nothing of it was run.")

    certificates = None if access.certificates is None else Path(access.certificates).read_bytes()
    run_in_flower(
        PROGRAM,
        access,
        inspect=inspect,
        replaced={"get_project_dir": lambda *_: ROOT},  # where it would have unpacked the bundle
        settings={"log_queue": Queue(), "certificates": certificates},
    )


def report_death(access: TaskAccess, number: int) -> None:
    """Tell the SuperLink at once that a run's process was killed; it would notice after a minute of silence."""
    from flwr.proto.runtime_pb2 import PushTaskOutputRequest
    from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, RuntimeVersionHttpInterceptor
    from flwr.supercore.runtime import RuntimeHttpClient

    interceptors: list[Any] = [
        RuntimeVersionHttpInterceptor(component_name="flwr-serverapp"),
        RuntimeTokenHttpInterceptor(access.token),
    ]
    certificates = None if access.certificates is None else Path(access.certificates).read_bytes()
    client = RuntimeHttpClient.from_server_address(access.address, access.insecure, certificates, interceptors)
    with suppress(httpx.HTTPError):
        details = f"The ServerApp's process was ended by signal {number}."
        client.PushTaskOutput(PushTaskOutputRequest(sub_status=SubStatus.FAILED, details=details))
    client.close()


def main() -> None:
    """Serve the SuperLink until stopped."""
    serve(TaskType.SERVER_APP, run_task, preload=PRELOAD, died=report_death)
