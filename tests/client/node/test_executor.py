"""The hospital's own checkout answers, never the bundle: against Flower's real SuperNode half, without a server.

Each tampered bundle announces itself if any of it runs; Flower's own executor, the control, lets each of them do so.
"""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path

import pytest
import tomli_w
import uvicorn
from flwr.app import ConfigRecord, Context, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.cli.build import build_fab_from_files
from flwr.supercore.constant import TaskType
from flwr.supercore.fab import Fab
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.supernode.main import create_app
from flwr.supernode.nodestate import NodeStateFactory
from flwr.supernode.start_client_internal import _insert_message

from client.node.executor import foreign
from common.protocol.packing import unpack
from common.runtime.processes import environment, program
from common.runtime.release import ROOT, own_digest, own_handshake, release_files

pytestmark = pytest.mark.timeout(600)
RUN, NODE, SECRET = 7, 5, b"between the node's two processes"
TAMPERED = ("changed code", "changed component", "shadowed dependency")


def genuine() -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in release_files().items()}


def tampered(kind: str, marker: Path) -> bytes:
    """A bundle of this release but for one thing, which leaves a mark when it is imported."""
    files, announce = genuine(), f"open({str(marker)!r}, 'w').close()\n".encode()
    manifest = tomllib.loads(files["pyproject.toml"].decode())
    if kind == "changed code":
        files["client/app.py"] = files["client/app.py"] + announce
    elif kind == "changed component":
        files["client/other.py"] = announce + b"from client.app import app as own\n\napp = own\n"
        manifest["tool"]["flwr"]["app"]["components"]["clientapp"] = "client.other:app"
    else:
        for name in ("pandas.py", "omegaconf.py"):  # one that a task imports, one that the app imports at once
            files[name] = announce
            manifest["tool"]["flwr"]["app"]["fab-include"].append(name)
    files["pyproject.toml"] = tomli_w.dumps(manifest).encode()
    return build_fab_from_files(files)[0]


class HalfNode:
    """Flower's SuperNode without its SuperLink: one message waits in its state for an executor."""

    def __init__(self, place: Path, bundle: bytes):
        objects = ObjectStoreFactory()
        states = NodeStateFactory(objectstore_factory=objects)
        self.state, self.home = states.state(), place
        (place / "secret").write_bytes(SECRET)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        config = uvicorn.Config(
            create_app(state_factory=states, superexec_auth_secret=SECRET), port=self.port, log_level="error"
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.05)
        self._give_message(bundle, objects.store())

    def _give_message(self, bundle: bytes, store) -> None:
        fab = Fab(hashlib.sha256(bundle).hexdigest(), bundle, {})
        run = Run.create_empty(RUN)
        run.fab_id, run.fab_version, run.fab_hash, run.series_id = "fedgraft/fedgraft", "0.1.0", fab.hash_str, RUN
        self.state.set_node_id(NODE)
        context = Context(RUN, NODE, {"code": "CHUM"}, RecordDict(), {}, series_id=RUN)
        self.state.set_run_series_context(RUN, context)
        self.state.store_run(run)
        self.state.store_fab(fab)
        metadata = Metadata(RUN, "", 1, NODE, "", "", time.time(), 3600.0, "query.describe")
        content = RecordDict({"config": ConfigRecord({"round": 1})})
        _insert_message(make_message(metadata=metadata, content=content), self.state, store)
        self.state.create_task(task_type=TaskType.CLIENT_APP, run_id=RUN, fab_hash=fab.hash_str)

    def answer_with(self, command: list[str]):
        """The reply's content, once an executor has answered; None where it sent an error."""
        address = ["--runtime-api-address", f"127.0.0.1:{self.port}"]
        with (self.home / "log").open("wb") as log:
            process = subprocess.Popen(
                [*command, *address],
                cwd=self.home,
                env=environment(self.home, {}),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            deadline = time.monotonic() + 400
            while not (replies := self.state.get_messages_legacy(is_reply=True)):
                assert time.monotonic() < deadline and process.poll() is None, self.log()
                time.sleep(0.1)
            time.sleep(0.5)  # its objects follow
            return self._content(replies[0].metadata.message_id)
        finally:
            os.killpg(process.pid, 9)
            process.wait()

    def log(self) -> str:
        return (self.home / "log").read_text(errors="replace")

    def _content(self, message_id: str):
        from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
        from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

        store = self.state.object_store
        contents = {t.object_id: store.get(t.object_id) for t in iterate_object_tree(store.get_object_tree(message_id))}
        message = inflate_object_from_contents(message_id, contents)
        return message.content if message.has_content() else None

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join()


@pytest.fixture
def half_node(tmp_path):
    made = []

    def make(bundle: bytes) -> HalfNode:
        made.append(HalfNode(tmp_path, bundle))
        return made[-1]

    yield make
    for node in made:
        node.close()


def ours(home: Path, release: str) -> list[str]:
    command = [sys.executable, "-c", "from client.node.executor import main; main()", "--secret", str(home / "secret")]
    return [*command, "--release", release, "--parent-pid", str(os.getpid())]


@pytest.mark.slow
@pytest.mark.parametrize("kind", TAMPERED)
def test_a_tampered_bundle_is_declined_and_nothing_of_it_is_unpacked_or_run(half_node, tmp_path, kind):
    marker = tmp_path / "marker"
    node = half_node(tampered(kind, marker))
    content = unpack(node.answer_with(ours(tmp_path, own_digest())))
    assert dict(content["status"])["code"] == "declined.code"
    assert dict(content["status"])["center"] == "CHUM"
    assert "nothing of it was unpacked or run" in node.log()
    assert not marker.exists() and not list((tmp_path / "flwr").rglob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", TAMPERED)
def test_control_flowers_own_executor_runs_it(half_node, tmp_path, kind):
    marker = tmp_path / "marker"
    node = half_node(tampered(kind, marker))
    node.answer_with([program("flower-superexec"), "--insecure", "--superexec-auth-secret-file", f"{tmp_path}/secret"])
    assert marker.exists(), node.log()


@pytest.mark.slow
def test_the_genuine_bundle_is_answered_by_this_checkout_and_not_unpacked_either(half_node, tmp_path):
    node = half_node(build_fab_from_files(genuine())[0])
    content = unpack(node.answer_with(ours(tmp_path, own_digest())))
    assert dict(content["status"])["code"] == "wire", "the order lacks its parts: our own app says so"
    assert not list((tmp_path / "flwr").rglob("*.py"))


def test_a_foreign_bundle_gets_a_sentence_with_both_digests(tmp_path):
    assert foreign(build_fab_from_files(genuine())[0], release=own_digest()) is None
    code, sentence = foreign(tampered("changed code", tmp_path / "marker"), release=own_digest())
    assert code == "declined.code" and own_digest()[:12] in sentence
    assert f"Both call themselves {own_handshake()}, so one of them was changed" in sentence
    assert "refused" in str(foreign(b"no archive", release=own_digest()))


def test_another_release_is_named_with_its_protocol_in_one_sentence():
    files = genuine()
    manifest = tomllib.loads(files["pyproject.toml"].decode())
    manifest["project"]["version"], manifest["tool"]["fedgraft"]["protocol"] = "9.2.0", 7
    files["pyproject.toml"] = tomli_w.dumps(manifest).encode()
    code, sentence = foreign(build_fab_from_files(files)[0], release=own_digest())
    assert code == "declined.release"
    assert sentence == (
        f"The server runs release 9.2.0 (protocol 7), this hospital's reviewed checkout is {own_handshake()}: nothing "
        "of its code was unpacked or run. Install and review the server's release here, or ask the coordinator to run "
        "this one."
    )
    manifest["tool"].pop("fedgraft")  # of a release before there was a number
    files["pyproject.toml"] = tomli_w.dumps(manifest).encode()
    assert foreign(build_fab_from_files(files)[0], release=own_digest())[0] == "declined.release"


def test_the_root_of_the_checkout_is_where_the_code_is():
    assert (ROOT / "client" / "node" / "executor.py").exists()
