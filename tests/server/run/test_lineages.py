"""People move a lineage's head, on the ledger; exports are signed, whole, and noticed when they are not."""

from __future__ import annotations

import json
import shutil

import pytest

from common.errors import BankError
from common.store.bank import AdapterBank
from common.store.exported import check_export
from common.store.ledger import Ledger
from server.run.export import export
from server.run.folder import RunFolder
from server.run.lineages import head_history, promote, rollback
from tests.helpers.small import adapters, federate, small_run


@pytest.fixture(scope="module")
def learned(tmp_path_factory, small_centers):
    """A run whose two steps write one lineage: its head moved once."""
    run = small_run(centers=["CHUM", "MDA"], rounds=1, steps=["tumour_ct", "tumour_ctpet"])
    for step in run.steps.values():
        step.writes = "tumour"
    folder = tmp_path_factory.mktemp("heads") / "run"
    return RunFolder(folder), adapters(federate(run, folder, small_centers))


@pytest.fixture
def run(learned, tmp_path):
    """A copy that a test may change, and its two adapters' keys."""
    shutil.copytree(learned[0].path, tmp_path / "run")
    return RunFolder(tmp_path / "run"), learned[1]["tumour_ct"], learned[1]["tumour_ctpet"]


def test_rolled_back_and_promoted_again_with_every_move_on_the_ledger(run):
    folder, first, second = run
    assert AdapterBank(folder.bank).head("tumour") == second
    assert rollback(folder, "tumour", reason="worse at MDA") == first
    assert promote(folder, "tumour", second[:8]) == second
    assert AdapterBank(folder.bank).head("tumour") == second
    ledger = Ledger(folder.ledger)
    assert head_history(ledger, "tumour") == [first, second]
    assert [event["kind"] for event in ledger.events(lineage="tumour")][-2:] == ["rolled_back", "promoted"]
    assert ledger.events("rolled_back")[0]["reason"] == "worse at MDA"
    assert ledger.events("rolled_back")[0]["previous_key"] == second
    ledger.verify()


def test_there_is_nothing_before_the_first_head(run):
    folder, first, _ = run
    rollback(folder, "tumour")
    assert AdapterBank(folder.bank).head("tumour") == first
    with pytest.raises(BankError, match="nothing to go back to"):
        rollback(folder, "tumour")


def test_an_unknown_key_answers_with_those_that_there_are(run):
    folder, first, second = run
    with pytest.raises(BankError, match=rf"0 adapters .* begin with 'zz'; it has .*{min(first, second)[:12]}"):
        promote(folder, "tumour", "zz")
    with pytest.raises(BankError, match="Nothing was ever learned"):
        rollback(folder, "lung")


def test_an_export_explains_itself_and_is_signed(run, tmp_path):
    folder, first, second = run
    export(folder, tmp_path / "out", key=tmp_path / "signing.key")
    manifest = check_export(tmp_path / "out")
    assert list(manifest["adapters"]) == [second] and manifest["adapters"][second]["is_head"]
    assert manifest["adapters"][second]["for"] == "segmentation on head_neck from CT+PET"
    assert AdapterBank(tmp_path / "out" / "bank").head("tumour") == second
    AdapterBank(tmp_path / "out" / "bank").get(second)
    assert "CT+PET" in (tmp_path / "out" / "README.md").read_text()
    assert not list((tmp_path / "out").rglob("*.key"))
    export(folder, tmp_path / "both", key=tmp_path / "signing.key", everything=True)
    assert set(check_export(tmp_path / "both")["adapters"]) == {first, second}
    same = [(tmp_path / name / "signer.pub").read_bytes() for name in ("out", "both")]
    assert same[0] == same[1], "the signing key is made once"


@pytest.mark.parametrize("harm", ["tensor", "manifest", "added", "removed", "signature"])
def test_whatever_is_changed_after_signing_is_noticed(run, tmp_path, harm):
    folder, _, second = run
    out = tmp_path / "out"
    export(folder, out, key=tmp_path / "signing.key")
    state = out / "bank" / second / "state.safetensors"
    if harm == "tensor":
        state.write_bytes(state.read_bytes()[:-1] + b"\x00\x01"[:1])
        state.write_bytes(state.read_bytes() + b"x")
    elif harm == "manifest":
        text = (out / "manifest.json").read_text()
        (out / "manifest.json").write_text(json.dumps({**json.loads(text), "run": "another"}))
    elif harm == "added":
        (out / "bank" / "more.py").write_text("pass")
    elif harm == "removed":
        (out / "README.md").unlink()
    else:
        (out / "manifest.sig").write_bytes(b"0" * 64)
    with pytest.raises(BankError, match=r"changed after it was signed|no valid signature"):
        check_export(out)


def test_another_signers_export_is_refused_where_the_fingerprint_is_known(run, tmp_path):
    folder, _, _ = run
    export(folder, tmp_path / "out", key=tmp_path / "other.key")
    with pytest.raises(BankError, match="do not use it"):
        check_export(tmp_path / "out", signer="0" * 64)


def test_an_existing_folder_is_not_signed_over(run, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(BankError, match="exists"):
        export(run[0], tmp_path / "out", key=tmp_path / "signing.key")
