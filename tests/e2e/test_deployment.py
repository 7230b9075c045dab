"""A coordinator and three hospitals as real processes, over TLS with keys: equal to the simulation, through crashes.

Slow for its polls, not for its work: both of Flower's ends look for messages every few seconds.
"""

from __future__ import annotations

import re
import signal
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Message
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from omegaconf import OmegaConf

from common.config.load import compose_run
from common.errors import FedgraftError
from common.model.adapted import AdaptedModel
from common.protocol.packing import unpack
from common.protocol.wire import STATUS_COUNTS, check_declared, declared_sums, unpack_reply
from common.store.ledger import Ledger
from common.tasks import build_task
from server.deploy.folder import Deployment
from server.deploy.status import status
from simulations.virtual.loopback import Loopback, loopback
from tests.helpers.deployed import SIZES, need_nginx, one_step, overrides, roots, start_nodes
from tests.helpers.recording import Recording, RecordingProxy
from tests.helpers.small import adapters, federate, write_centers

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]
PATIENT = re.compile(rb"(CHUM|CHUP|MDA)-\d{3}")
RUN_S = 600.0


@pytest.fixture(scope="module")
def proxy_and_fed(tmp_path_factory):
    """The federation of this module's tests, and the proxy through which its hospitals reach nginx."""
    need_nginx()
    base = tmp_path_factory.mktemp("federation")
    with loopback(base, roots(base)) as made:
        made.start_server()
        proxy = RecordingProxy(made.coordinator, public_port(made))
        for code in SIZES:
            change(made, code, server=f"localhost:{proxy.port}")
        start_nodes(made, *SIZES)
        yield proxy, made
        proxy.close()


@pytest.fixture(scope="module")
def fed(proxy_and_fed):
    """The federation; the tests use it one after the other."""
    return proxy_and_fed[1]


@pytest.fixture(scope="module")
def recorded(proxy_and_fed):
    """The bytes that hospitals sent during an undisturbed run, and what `server run` said."""
    proxy, made = proxy_and_fed
    made.start_run(overrides("undisturbed"))
    said = made.finish_run(within_s=RUN_S)
    return Recording([bytes(stream) for stream in proxy.upwards]), said


def public_port(fed: Loopback) -> int:
    return int(OmegaConf.load(fed.coordinator / "server.yaml").public_port)


@pytest.fixture(scope="module")
def simulated(fed, tmp_path_factory):
    """The same run in this process: what its adapters hash to."""
    return adapters(in_this_process(fed, overrides("undisturbed"), tmp_path_factory.mktemp("simulated")))


def in_this_process(fed: Loopback, words: list[str], place: Path):
    """A run of the same hospitals, without messages between processes."""
    files = {}
    for code in SIZES:
        files |= write_centers(place / code, fed.base / f"{code}-data", [code])
    return federate(compose_run(words), place / "run", files)


def change(fed: Loopback, code: str, **values: object) -> None:
    """Change keys of a hospital's center.yaml."""
    file = fed.centers[code]
    file.write_text(OmegaConf.to_yaml(OmegaConf.merge(OmegaConf.load(file), OmegaConf.create(values))))


def events(fed: Loopback, name: str, kind: str) -> list[dict]:
    return Ledger(fed.run_folder(name).ledger).events(kind)


def when(fed: Loopback, name: str, kind: str, count: int, act: Callable[[], None]) -> None:
    """Do something as soon as the run's ledger has so many events of a kind."""
    fed.wait(lambda: len(events(fed, name, kind)) >= count, what=f"{count} {kind}", name="run", within_s=RUN_S)
    act()


# ---- 1. simulation equals deployment ----------------------------------------------------------------------------


def test_the_deployed_run_ends_with_the_simulations_adapters(fed, recorded, simulated):
    assert fed.adapters("undisturbed") == simulated
    assert set(simulated) == {"tumour_ct", "tumour_ctpet"}


def test_it_learned(fed, recorded):
    rounds = events(fed, "undisturbed", "round_finished")
    losses = [sum(row["loss"] * row["cases"] for row in e["train"].values()) for e in rounds]
    assert losses[1] < losses[0] and losses[3] < losses[2]
    assert rounds[0]["state_hash"] != rounds[1]["state_hash"]
    assert all(set(event["train"]) == set(SIZES) and not event["failed"] for event in rounds)


def test_its_report_is_written_and_nothing_drifted(fed, recorded):
    folder = fed.run_folder("undisturbed")
    assert folder.report.stat().st_size > 10_000 and folder.results.exists()
    [verified] = events(fed, "undisturbed", "verified")
    assert set(verified["changed_bits"].values()) == {0}
    assert "kept round" in recorded[1]


def test_status_shows_hospitals_and_the_finished_run(fed, recorded):
    found = status(Deployment.open(fed.coordinator))
    assert found.is_serving and set(found.hospitals) == set(SIZES)
    [run] = [run for run in found.runs if run.name == "undisturbed"]
    assert (run.flower, run.step, run.round, run.rounds) == ("finished completed", "tumour_ctpet", 2, 2)
    assert run.bytes > 1_000_000


# ---- 4. what crossed the wire ------------------------------------------------------------------------------------


def replies_on_the_wire(recording: Recording) -> list[Message]:
    """Every reply that hospitals sent, put together from the recorded bytes."""
    objects: dict[str, bytes] = {}
    found: list[str] = []
    for path, body in recording.requests():
        if path == "/v1/fleet/push-object":
            request = PushObjectRequest.FromString(body)
            objects[request.object_id] = request.object_content
        elif path == "/v1/fleet/push-messages":
            request = PushMessagesRequest.FromString(body)
            found += [message.metadata.message_id for message in request.messages_list]
    return [inflate_object_from_contents(key, dict(objects), keep_object_contents=True) for key in found]


def test_the_wire_carries_declared_arrays_sums_and_status_codes_only(fed, recorded):
    run = compose_run(overrides("undisturbed"))
    states = [AdaptedModel(_backbone(run), step, seed=run.seed).state() for step in run.steps.values()]
    sums = {}
    for step in run.steps.values():
        sums |= declared_sums(build_task(step.task), curves=False)
    replies = [unpack(message.content) for message in replies_on_the_wire(recorded[0])]
    assert len(replies) >= 3 * 13
    for content in replies:
        assert set(content) == {"arrays", "sums", "status"}
        status_record = content["status"]
        assert isinstance(status_record, ConfigRecord)
        assert set(status_record) <= {"center", "code", "order", "seconds", "round", *STATUS_COUNTS}
        reply = unpack_reply(content)
        like = next(state for state in states if set(reply.state) <= set(state))
        check_declared(reply, state_like=like, sum_shapes=sums)
    assert sum(bool(unpack_reply(content).state) for content in replies) == 3 * 4  # one update a center and round


def test_no_byte_names_a_patient_or_is_a_voxel(fed, recorded):
    import nibabel as nib

    sent = b"".join(recorded[0].upwards)
    assert len(sent) > 1_000_000 and not PATIENT.search(sent)
    assert not any(word in sent for word in (b"imagesTr", b".nii", b"Traceback", str(fed.base).encode()))
    for code in SIZES:
        for file in sorted((fed.base / f"{code}-data" / "imagesTr").glob("*.nii.gz")):
            voxels = nib.load(file).get_fdata()
            for kind in ("<i2", "<f4", "<f8"):
                row = voxels[8, 8].astype(kind)
                is_plain = not row.any()  # an uptake below 1 as whole numbers: zeros stand in many a sum
                assert is_plain or row.tobytes() not in sent, f"a row of voxels of {file.name} as {kind}"


def test_every_other_request_is_small_and_known(recorded):
    others = [(path, body) for path, body in recorded[0].requests() if "/push-" not in path]
    assert {path for path, _ in others} <= {
        f"/v1/fleet/{name}"
        for name in (
            "activate-node", "deactivate-node", "send-node-heartbeat", "pull-messages", "get-run", "get-fab",
            "pull-object", "confirm-message-received",
        )
    }  # fmt: skip
    assert max(len(body) for _, body in others) < 400


def _backbone(run):
    from common.backbones import load_backbone

    return load_backbone(run.backbone)


# ---- 2. killed at any instant ------------------------------------------------------------------------------------


def kill_app(fed: Loopback) -> None:
    """SIGKILL the ServerApp: the fork server's child below the coordinator's executor."""
    for process in task_processes(fed, "server"):
        process.send_signal(signal.SIGKILL)


def task_processes(fed: Loopback, name: str) -> list:
    """Processes that work on a task now: forks of a fork server, which itself is a child of the executor."""
    forks = fed.processes(name, "multiprocessing.forkserver")
    ids = {process.pid for process in forks}
    return [process for process in forks if process.ppid() in ids]


def test_serverapp_killed_at_five_points_and_a_clients_process_end_as_undisturbed(fed, simulated):
    """One step; every update arrives in the end, so the adapter has the same bits."""
    fed.start_run(one_step("killed"))
    when(fed, "killed", "run_started", 1, lambda: kill_app(fed))
    when(fed, "killed", "step_started", 1, lambda: kill_app(fed))
    when(fed, "killed", "start_scores", 1, lambda: kill_client_work(fed, "CHUP"))
    when(fed, "killed", "start_scores", 1, lambda: kill_app(fed))
    when(fed, "killed", "round_finished", 1, lambda: kill_app(fed))
    when(fed, "killed", "round_finished", 2, lambda: kill_app(fed))
    fed.finish_run(within_s=RUN_S)
    assert fed.adapters("killed") == {"tumour_ct": simulated["tumour_ct"]}
    assert len(events(fed, "killed", "run_resumed")) >= 4
    rounds = [event["round"] for event in events(fed, "killed", "round_finished")]
    assert rounds == [1, 2], "no round was trained twice"
    assert "process_died" in fed.center_log("CHUP")


def kill_client_work(fed: Loopback, code: str) -> None:
    """SIGKILL the process that opens patient files, as soon as a message has one."""
    fed.wait(lambda: len(task_processes(fed, code)) >= 2, what=f"work at {code}", name="run", within_s=60.0)
    workers = task_processes(fed, code)
    parents = {process.ppid() for process in workers}
    at_work = next(process for process in workers if process.pid not in parents)
    at_work.send_signal(signal.SIGKILL)


def test_superlink_and_a_supernode_killed_the_run_goes_on(fed, simulated):
    """The SuperLink's death costs nothing but time; a SuperNode's costs that center's update of that round only."""
    fed.start_run(overrides("lost", "steps.tumour_ctpet.federation.quorum=0.6"))  # two of three are enough
    when(fed, "lost", "start_scores", 1, lambda: fed.processes("server", "flower-superlink")[0].kill())
    when(fed, "lost", "step_finished", 1, lambda: None)
    assert fed.adapters("lost")["tumour_ct"] == simulated["tumour_ct"]
    before = len(events(fed, "lost", "start_scores"))  # a resumed step is scored again
    when(fed, "lost", "start_scores", before + 1, lambda: fed.processes("MDA", "flower-supernode")[0].kill())
    fed.finish_run(within_s=RUN_S)
    rounds = events(fed, "lost", "round_finished")
    assert [event["round"] for event in rounds] == [1, 2, 1, 2]
    assert set(rounds[2]["train"]) >= {"CHUM", "CHUP"}
    assert "starts again" in fed.log("MDA").read_text() and "starts again" in fed.log("server").read_text()


# ---- 3. refused ---------------------------------------------------------------------------------------------------


def stranger(fed: Loopback, code: str) -> str:
    """What `client start` of a hospital ends with."""
    fed.start_node(code, wait=False)
    with pytest.raises(FedgraftError, match="ended"):
        fed.wait(lambda: False, what=f"the node of {code}", name=code, within_s=120.0)
    assert fed.running.pop(code).returncode == 2
    return fed.log(code).read_text()


def test_an_unregistered_node_and_a_wrong_key_are_told_why(fed, tmp_path):
    fed.make_hospital("HMR", tmp_path)
    assert "does not let in the key" in stranger(fed, "HMR")
    fed.enrol("HMR")
    for file in (fed.base / "HMR" / "keys").iterdir():
        file.unlink()
    from client.node.keys import make_keys

    make_keys(fed.base / "HMR" / "keys" / "HMR", comment="another")
    assert "does not let in the key" in stranger(fed, "HMR")


def test_a_plaintext_connection_a_foreign_authority_and_the_control_api_are_refused(fed, tmp_path):
    from server.deploy.certificates import make_authority

    make_authority(tmp_path / "other.crt", tmp_path / "other.key")
    fed.make_hospital("HGJ", tmp_path, server_certificate=str(tmp_path / "other.crt"))
    assert "is not signed by" in stranger(fed, "HGJ")
    port = public_port(fed)
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(f"http://localhost:{port}/v1/fleet/activate-node", data=b"")
    for path in ("/v1/control/start-run", "/v1/control/register-node", "/v1/runtime/acquire-task", "/docs"):
        assert knock(fed, port, path) == 403
    assert knock(fed, port, "/v1/fleet/register-node") == 403


def knock(fed: Loopback, port: int, path: str) -> int:
    """The answer to a hospital that has the authority's certificate and nothing else."""
    import ssl

    trust = ssl.create_default_context(cafile=str(fed.coordinator / "ca.crt"))
    try:
        with urllib.request.urlopen(f"https://localhost:{port}{path}", data=b"", context=trust) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_local_policies_refuse_with_a_code_there_and_a_sentence_here(fed):
    """CHUP allows another frozen model only, MDA another task only; a third center trains without them."""
    change(fed, "CHUP", policy={"bases": ["0" * 64]})
    change(fed, "MDA", policy={"tasks": ["prognosis"]})
    fed.start_run(one_step("policy", "steps.tumour_ct.rounds=1"))
    fed.finish_run(within_s=RUN_S)
    [started] = events(fed, "policy", "step_started")
    assert started["refused"] == {"CHUP": "declined.base", "MDA": "declined.task"}
    assert "is not on the local allow-list" in fed.center_log("CHUP")
    assert "Local policy allows ['prognosis']" in fed.center_log("MDA")
    change(fed, "CHUP", policy={"bases": []})
    change(fed, "MDA", policy={"tasks": []})


# ---- 5. centers come and go ---------------------------------------------------------------------------------------


def four_steps() -> list[str]:
    """Centers come and go; the second and the third step are of one lineage, and together have a method of every hook:
    who trains, the start, each batch's loss, the penalty, the gradient, the step, and what is kept at a step's end."""
    words = one_step("change", "steps.tumour_ct.rounds=1", centers=("CHUM", "CHUP"))
    later = {"second": "[CHUM,CHUP]", "third": "[CHUM,CHUP,MDA]", "fourth": "[CHUP,MDA]"}
    for name, centers in later.items():
        words += [f"+step@steps.{name}=tumour_ct", f"steps.{name}.rounds=1"]
        words += [f"steps.{name}.view.{key}=[16,16,16]" for key in ("size", "window")]
        words += [f"steps.{name}.view.spacing_mm=[6,6,6]"]
        words += [f"steps.{name}.centers={centers}", f"steps.{name}.evaluate_at={centers}"]
    kept, memory = "ewc,{kind: inflora, rank: 1}", "{kind: rehearsal, at: [CHUM], cases: 2}"
    for name, methods in {"second": kept, "third": f"{memory},lwf,proximal,{kept}"}.items():
        words += [f"adapter@steps.{name}.adapter=decoder_lora", f"steps.{name}.adapter.parts.within.rule=ffa"]
        words += [f"steps.{name}.writes=tumor", f"steps.{name}.methods=[{methods}]"]
    return words


def test_a_center_joins_at_step_three_and_another_leaves_at_step_four(fed, tmp_path):
    """With a method of every hook on the way, the adapters are the simulation's."""
    fed.stop("MDA")
    for code in SIZES:
        change(fed, code, policy={"federations": ["all"]})  # second moments need a word of the hospital's
    fed.start_run(four_steps())
    when(fed, "change", "step_started", 2, lambda: start_nodes(fed, "MDA"))
    when(fed, "change", "step_started", 4, lambda: fed.stop("CHUM"))
    fed.finish_run(within_s=RUN_S)
    assert [event["centers"] for event in events(fed, "change", "step_started")] == [
        ["CHUM", "CHUP"],
        ["CHUM", "CHUP"],
        ["CHUM", "CHUP", "MDA"],
        ["CHUP", "MDA"],
    ]
    assert fed.adapters("change") == adapters(in_this_process(fed, four_steps(), tmp_path))
    assert {kind for event in events(fed, "change", "keepsakes_stored") for kind in event["kept"]} == {"ewc", "inflora"}
    assert [event["step"] for event in events(fed, "change", "start_made")] == ["second", "third"]
