"""Which round is kept, what a metric is made of, and that a checkpoint is what the ledger says."""

import numpy as np
import pytest
import torch

from common.backbones.base import tensors_digest
from common.errors import RoundFailed
from common.files import write_tensors
from common.tasks import build_task
from server.learning.rounds import kept_round, load_checkpoint, value_of
from server.run.folder import RunFolder
from tests.helpers.small import small_run


def event(number, pooled, metric="dice"):
    return {"round": number, "validation": {"metric": metric, "pooled": pooled}}


def test_the_start_is_kept_if_no_round_is_better_and_of_equals_the_lower_loss():
    def with_loss(number, pooled, loss):
        return {"round": number, "validation": {"metric": "dice", "pooled": pooled, "loss": loss}}

    assert kept_round([with_loss(0, 0.5, 1.0), with_loss(1, 0.4, 0.1), with_loss(2, 0.4, 0.1)])["round"] == 0
    assert kept_round([with_loss(0, 0.5, 1.0), with_loss(1, 0.5, 0.9), with_loss(2, 0.5, 0.95)])["round"] == 1
    assert kept_round([with_loss(0, 0.5, 1.0), with_loss(1, 0.5, 1.0)])["round"] == 1


@pytest.mark.parametrize(
    ("values", "kept"),
    [([0.1, 0.3, 0.2], 2), ([0.3, 0.3], 2), ([None, 0.0, None], 2), ([None, None], 2), ([-1.0, -2.0], 1)],
)
def test_the_best_validation_value_is_kept_the_latest_of_equals(values, kept):
    assert kept_round([event(i, value) for i, value in enumerate(values, start=1)])["round"] == kept


def test_of_losses_the_smallest_is_kept():
    losses = [event(1, 0.5, "loss"), event(2, 0.2, "loss"), event(3, 0.4, "loss")]
    assert kept_round(losses)["round"] == 2


def test_a_loss_is_a_mean_per_case_and_metrics_ignore_it():
    task = build_task(small_run(steps=["tumour_ct"]).steps["tumour_ct"].task)
    sums = dict(task.sums([])) | {"fit.loss": np.array(6.0), "fit.cases": np.array(4.0)}
    sums["intersection"], sums["volumes"] = np.array([1.0, 3.0]), np.array([4.0, 6.0])
    assert value_of(task, sums, "loss") == 1.5
    assert value_of(task, sums, "dsc_agg") == (0.5 + 1.0) / 2
    assert value_of(task, {"fit.loss": np.array(0.0), "fit.cases": np.array(0.0)}, "loss") is None


def test_a_checkpoint_is_checked_against_the_ledger(tmp_path):
    folder, state = RunFolder(tmp_path), {"decoder/w": torch.arange(3.0)}
    known = {"round": 2, "state_hash": tensors_digest(state)}
    with pytest.raises(RoundFailed, match="is missing"):
        load_checkpoint(folder, "a", known)
    write_tensors(folder.checkpoint("a", 2), state)
    assert torch.equal(load_checkpoint(folder, "a", known)["decoder/w"], state["decoder/w"])
    write_tensors(folder.checkpoint("a", 2), {"decoder/w": torch.ones(3)})
    with pytest.raises(RoundFailed, match="does not have the hash in the ledger"):
        load_checkpoint(folder, "a", known)
    folder.checkpoint("a", 2).write_bytes(b"torn")
    with pytest.raises(RoundFailed, match="cannot be read"):
        load_checkpoint(folder, "a", known)
