"""A vault that states of earlier steps fill takes in no new step, and what was begun goes on."""

from dataclasses import replace

import pytest

from client.center.center import Center
from client.vault.room import check_room, taken
from common.config.adapter import LoraPart
from common.errors import PolicyRefusal
from common.protocol.messages import STAGE
from simulations.virtual.local_grid import LocalGrid
from tests.attacks.test_stages import an_order
from tests.helpers.actions import answered, order_of
from tests.helpers.small import forget, write_centers


def test_states_are_counted_and_nothing_else(tmp_path):
    for name, size in {"steps/a/own/round-0001.safetensors": 700, "bases/k/state.safetensors": 300}.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(bytes(size))
    (tmp_path / "sent.jsonl").write_bytes(bytes(5000))
    assert taken(tmp_path) == 1000
    check_room(tmp_path, tmp_path / "steps" / "new", most_gb=1001e-9)
    check_room(tmp_path, tmp_path / "steps" / "new", most_gb=None)
    check_room(tmp_path, tmp_path / "steps" / "a", most_gb=0.0)
    with pytest.raises(PolicyRefusal, match=r"maximum_vault_gb is 1e-06, so no other step is begun") as refusal:
        check_room(tmp_path, tmp_path / "steps" / "new", most_gb=1e-6)
    assert refusal.value.code == "declined.room"


def test_runs_without_end_fill_no_disk(tmp_path, small_root):
    """Each leaves this center's own last state; a stage, an adapter."""
    forget()
    LocalGrid({}, workers=0).close()
    order, own = order_of("train"), {"reach": 30.0, "maximum_vault_gb": 1e-6}
    file = write_centers(tmp_path, small_root, ["CHUP"], **own)["CHUP"]
    assert answered(file, order, "train").code == "ok"
    assert answered(file, order, "train").code == "ok", "what was begun goes on"
    another = answered(file, replace(order, run="cd" * 16), "train")
    assert another.code == "declined.room" and not another.state
    stage = an_order(tmp_path / "server", LoraPart(sites=["image_attention"], rank=2))
    assert answered(file, stage, STAGE).code == "declined.room"


def test_a_step_that_keeps_nothing_goes_on_in_a_vault_that_others_fill(tmp_path, small_root):
    forget()
    LocalGrid({}, workers=0).close()
    order = order_of("train")
    file = write_centers(tmp_path, small_root, ["CHUP"], maximum_vault_gb=1e-6)["CHUP"]
    assert answered(file, order, "train").code == "ok"
    full = Center.open(file).vault / "steps" / "another" / "own.safetensors"
    full.parent.mkdir(parents=True, exist_ok=True)
    full.write_bytes(bytes(2000))
    assert answered(file, replace(order, round=order.round + 1), "train").code == "ok"
    assert answered(file, replace(order, run="cd" * 16), "train").code == "declined.room"
