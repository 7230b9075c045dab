"""audit, erase, describe and health, on a center that took part in a real federation of this process."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
from flwr.supercore.grpc_health import run_health_server_grpc_no_tls

from client.__main__ import main
from client.center.center import Center
from client.commands.audit import audit
from client.commands.codes import codes_for, forget_code
from client.commands.describe import suppressed
from common.errors import LedgerError
from tests.helpers.small import federate, forget, small_run, write_centers


@pytest.fixture(scope="module")
def afterwards(tmp_path_factory, small_root):
    """The centers' folder after a federation."""
    folder = tmp_path_factory.mktemp("afterwards")
    files = write_centers(folder / "centers", small_root, ["CHUM", "CHUP"])
    federate(small_run(centers=["CHUM", "CHUP"], rounds=1, steps=["tumour_ct"]), folder / "run", files)
    return folder / "centers"


@pytest.fixture
def trained(afterwards, tmp_path, small_root):
    """A center that took part, with a vault and a cache of its own."""
    files = write_centers(tmp_path / "centers", small_root, ["CHUM", "CHUP"])
    for part in (".vault", ".cache"):
        shutil.copytree(afterwards / part, tmp_path / "centers" / part)
    return files["CHUM"]


def ask(command, file, *words):
    return main([command, "--center", str(file), *words])


def test_audit_tells_what_left_and_notices_a_change(trained, capsys):
    assert ask("audit", trained, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    [train] = [total for total in found["totals"] if total["action"] == "train"]
    [event] = [event for event in found["events"] if event["action"] == "train"]
    assert (train["step"], train["replies"], train["bytes"]) == ("tumour_ct", 1, event["bytes"]) and event[
        "bytes"
    ] > 1000
    assert ask("audit", trained) == 0 and "the chain holds" in capsys.readouterr().out
    vault = Center.open(trained).vault
    lines = (vault / "sent.jsonl").read_text().splitlines(True)
    (vault / "sent.jsonl").write_text("".join(lines[:1] + lines[2:]))
    assert ask("audit", trained) == 2 and "breaks the hash chain" in capsys.readouterr().err


def test_lines_cut_off_at_the_end_are_noticed_by_a_hash_noted_earlier(trained):
    vault = Center.open(trained).vault
    last = audit(vault)["last_hash"]
    assert audit(vault, contains=last)["last_hash"] == last
    lines = (vault / "sent.jsonl").read_text().splitlines(True)
    (vault / "sent.jsonl").write_text("".join(lines[:-1]))
    assert len(audit(vault)["events"]) == len(lines) - 1
    with pytest.raises(LedgerError, match="lines were removed"):
        audit(vault, contains=last)


def test_an_erased_patient_is_gone_from_cache_codes_and_splits(trained, capsys):
    center = Center.open(trained)
    codes_for(center.vault, "CHUM", ["4711", "0815"])
    kept = [case.patient for case in center.cases if case.patient != "CHUM-002"]
    cache = trained.parent / ".cache"
    assert list(cache.rglob("*.safetensors"))
    assert ask("erase", trained, "--patient", "CHUM-002") == 0
    forget()
    assert not [path for path in cache.rglob("*") if path.is_file()]
    assert [case.patient for case in Center.open(trained).cases] == kept
    assert list(json.loads((center.vault / "codes.json").read_text())["codes"].values()) == ["CHUM-001"]
    assert "CHUM-002" not in capsys.readouterr().out
    assert ask("erase", trained, "--patient", "CHUM-002") == 0 and "already erased" in capsys.readouterr().out
    assert ask("erase", trained, "--patient", "CHUM-099") == 2 and "has no patient" in capsys.readouterr().err
    named = [path.name for path in trained.parent.rglob("*") if path.is_file() and b"CHUM-002" in path.read_bytes()]
    assert named == []  # not even in the vault


def test_codes_are_kept_never_reused_and_tell_no_order(tmp_path):
    first = codes_for(tmp_path, "CHUM", [f"{n:04d}" for n in range(20)])
    assert sorted(first.values()) == [f"CHUM-{n:03d}" for n in range(1, 21)] and list(first.values()) != sorted(
        first.values()
    )
    assert forget_code(tmp_path, first["0003"]) == 1 and forget_code(tmp_path, "CHUM-999") == 0
    second = codes_for(tmp_path, "CHUM", ["0001", "0003", "new"])
    assert second == {"0001": first["0001"], "new": "CHUM-021"}  # the erased patient gets no code ever again
    assert "0003" not in codes_for(tmp_path, "CHUM", ["0003"]) and b"0003" not in (tmp_path / "codes.json").read_bytes()


def test_small_cells_and_what_would_reveal_them_are_suppressed():
    counts = {"patients": 30, "PET": 30, "label": 28, "HPV": 3, "relapse": 12, "chest": 0}
    expected = {"patients": 30, "PET": 30, "label": ">25", "HPV": "<5", "relapse": 12, "chest": 0}
    assert suppressed(counts, minimum=5) == expected
    assert set(suppressed({"patients": 4, "PET": 0}, minimum=5).values()) == {"<5"}


def test_describe_prints_what_the_reply_would_hold(trained, capsys):
    assert ask("describe", trained, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["counts"] == {
        "patients": 6, "with CT": 6, "with PET": 6, "with a label": 6, "with a clinical record": 6,
        "with HPV status": 6, "with an outcome": 6, "with a relapse": "<5", "with chest findings": 0,
    }  # fmt: skip
    assert found["split"].startswith("The split is seed 0, 3 folds, validation 0.34, fixed on 20")
    assert found["split"].endswith(
        "by the order for step 'tumour_ct'; 6 patients have their place; every fold may test."
    )
    assert ask("describe", trained, "--curriculum", "smoke") == 0
    assert "step tumour_ct" in capsys.readouterr().out
    assert ask("describe", trained, "--curriculum", "smoke", "data.split.folds=5") == 0
    assert "declined.split" in capsys.readouterr().out


def test_to_describe_fixes_no_split(tmp_path, small_root, capsys):
    file = write_centers(tmp_path, small_root, ["CHUM"])["CHUM"]
    assert ask("describe", file, "--curriculum", "smoke") == 0
    said = capsys.readouterr().out
    assert "The split is not fixed yet" in said and "step tumour_ct" in said and "declined" not in said
    assert not Center.open(file).vault.exists()


def test_a_split_is_shown_and_given_up(trained, capsys):
    assert ask("erase", trained, "--patient", "CHUM-002") == 0
    capsys.readouterr()
    assert ask("split", trained) == 0 and capsys.readouterr().out.startswith("The split is seed 0, 3 folds")
    assert ask("split", trained, "--release") == 0
    said = capsys.readouterr().out.splitlines()
    assert (
        said[0] == "The split is given up: adapters that were learned before must not be judged at this center again."
    )
    assert said[1].startswith("The split is not fixed yet")
    assert "CHUM-002" not in [case.patient for case in Center.open(trained).cases]


@pytest.mark.parametrize("is_lost", [True, False])
def test_a_damaged_split_is_told_by_every_command_and_begun_anew_on_demand(trained, capsys, is_lost):
    path = Center.open(trained).vault / "cohort.jsonl"
    path.unlink() if is_lost else path.write_text("?\n")
    for command in (["describe"], ["split"], ["erase", "--patient", "CHUM-001"]):
        assert ask(command[0], trained, *command[1:]) == 2
        assert "client split --release" in capsys.readouterr().err
    assert ask("doctor", trained) == 1 and "client split --release" in " ".join(capsys.readouterr().out.split())
    assert ask("split", trained, "--release") == 0
    said = capsys.readouterr().out
    assert "it knows no erased patient, so erase them again" in said and "The split is not fixed yet" in said
    assert len(list(path.parent.glob("cohort-damaged-*.jsonl"))) == (0 if is_lost else 1)
    assert ask("describe", trained) == 0


def test_health_asks_flowers_own_service(trained, capsys):
    server = run_health_server_grpc_no_tls("127.0.0.1:0")
    address = server.bound_address if ":" in str(server.bound_address) else None
    try:
        assert address and ask("health", trained, "--address", address, "--wait", "5") == 0
        assert "SERVING" in capsys.readouterr().out
    finally:
        server.stop(None).wait()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(ask, "health", trained, "--address", "127.0.0.1:1").result() == 1
    assert "no answer" in capsys.readouterr().out


def test_start_without_a_coordinator_says_what_is_missing(trained, capsys):
    assert ask("start", trained) == 2
    assert "does not say server, server_certificate, key" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_named_with_the_way_to_make_one(tmp_path, capsys):
    assert ask("audit", tmp_path / "center.yaml") == 2
    assert "Write one with `python -m client init`" in capsys.readouterr().err
