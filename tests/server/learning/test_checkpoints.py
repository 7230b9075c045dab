"""A checkpoint is what the ledger says it is."""

import pytest
import torch

from common.backbones.base import tensors_digest
from common.errors import RoundFailed
from common.files import write_tensors
from server.learning.checkpoints import load_checkpoint
from server.run.folder import RunFolder


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
