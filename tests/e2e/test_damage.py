"""A file that is damaged, missing or rolled back ends in a sentence, a code or the adapters of an undisturbed run.

Every row damages a copy of one run that was stopped in its second step, then starts the same command again.
"""

import errno
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from common.config.federation import Compression
from common.errors import BankError, FedgraftError, LedgerError, RoundFailed
from common.runtime.cli import run_command
from common.store.ledger import Ledger
from server.learning import rounds
from server.run.folder import RunFolder
from tests.helpers.disks import refusing
from tests.helpers.small import adapters, federate, small_run, write_centers

CENTERS = ["CHUM", "CHUP"]
STOPPED_AFTER, ROUNDS = 3, 4
pytestmark = pytest.mark.slow


class Killed(BaseException):
    """The process ends here."""


def a_run():
    run = small_run(centers=CENTERS, steps=["tumour_ct", "tumour_ctpet"], rounds=1)
    step = run.steps["tumour_ctpet"]
    step.rounds, step.federation.compression, step.federation.quorum = ROUNDS, Compression("int8"), 0.5
    return run


@dataclass(frozen=True)
class Place:
    """A copy of the stopped run, and of the hospitals' folders."""

    path: Path
    root: Path

    @property
    def run(self) -> Path:
        return self.path / "run"

    @property
    def vault(self) -> Path:
        """CHUM's."""
        return self.path / "centers" / ".vault" / "CHUM"

    @property
    def cache(self) -> Path:
        return self.path / "centers" / ".cache"

    def one(self, pattern: str) -> Path:
        """The last of some files, which is not empty."""
        return sorted(path for path in self.path.glob(pattern) if path.is_file() and path.stat().st_size)[-1]

    def start(self):
        """The same command."""
        files = {code: self.path / "centers" / f"{code}.yaml" for code in CENTERS}
        return federate(a_run(), self.run, files)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, small_root):
    path = tmp_path_factory.mktemp("stopped")
    write_centers(path / "centers", small_root, CENTERS)
    place, real = Place(path, small_root), rounds.call_roll

    def dying(federation, strategy, ledger, number):
        if number == STOPPED_AFTER:
            shutil.copytree(path, backup_of(path), symlinks=True)
        if number > STOPPED_AFTER:
            raise Killed
        return real(federation, strategy, ledger, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounds, "call_roll", dying)
        with pytest.raises(Killed):
            place.start()
    return place


def backup_of(path: Path) -> Path:
    """Where a copy of everything lies that was made one round before the run was stopped."""
    return path.with_name(f"{path.name}-backup")


@pytest.fixture
def place(stopped, tmp_path):
    """A copy: hospitals' files name their folders, so these are written again."""
    shutil.copytree(stopped.path, tmp_path / "copy", symlinks=True)
    write_centers(tmp_path / "copy" / "centers", stopped.root, CENTERS)
    return Place(tmp_path / "copy", stopped.root)


@pytest.fixture(scope="module")
def undisturbed(stopped, tmp_path_factory):
    path = tmp_path_factory.mktemp("undisturbed") / "copy"
    shutil.copytree(stopped.path, path)
    write_centers(path / "centers", stopped.root, CENTERS)
    leader = Place(path, stopped.root).start()
    return adapters(leader), [event["scores"] for event in leader.ledger.events("step_finished")]


def cut(pattern):
    def damage(place):
        path = place.one(pattern)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return damage


def flipped(pattern):
    def damage(place):
        path = place.one(pattern)
        content = bytearray(path.read_bytes())
        content[-3] ^= 1
        path.write_bytes(bytes(content))

    return damage


def written(pattern, content):
    return lambda place: place.one(pattern).write_bytes(content)


def every(pattern, change):
    def damage(place):
        found = [path for path in place.path.glob(pattern) if path.is_file()]
        assert found, pattern
        for path in found:
            path.write_bytes(change(path.read_bytes()))

    return damage


def gone(pattern):
    def damage(place):
        [path] = place.path.glob(pattern)
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def replaced_by(pattern, *, folder):
    def damage(place):
        gone(pattern)(place)
        path = place.path / pattern
        path.mkdir() if folder else path.write_text("in the way")

    return damage


def lines(change):
    """Of the ledger."""

    def damage(place):
        ledger = place.run / "ledger.jsonl"
        ledger.write_bytes(change(ledger.read_bytes()))

    return damage


def rolled_back(to):
    """The ledger as it was after round ``to`` of the second step."""

    def damage(place):
        ledger = place.run / "ledger.jsonl"
        kept = []
        for line in ledger.read_bytes().splitlines(keepends=True):
            kept.append(line)
            if b'"round_finished"' in line and b'"tumour_ctpet"' in line and f'"round":{to},'.encode() in line:
                break
        ledger.write_bytes(b"".join(kept))

    return damage


SAME = {
    "ledger: last line cut in half": lines(lambda text: text[:-100]),
    "ledger: last newline missing": lines(lambda text: text[:-1]),
    "ledger: zeros at the end": lines(lambda text: text + b"\0" * 4096),
    "ledger: edited on Windows": lines(lambda text: text.replace(b"\n", b"\r\n")),
    "ledger: rolled back by one round": rolled_back(2),
    "heads: emptied": written("run/bank/heads.json", b""),
    "heads: one bit": flipped("run/bank/heads.json"),
    "heads: deleted": gone("run/bank/heads.json"),
    "config.yaml: deleted": gone("run/config.yaml"),
    "evaluations: all cut": every("run/evaluations/*", lambda b: b[: len(b) // 2]),
    "evaluations: all one bit": every("run/evaluations/*", lambda b: b[:-3] + bytes([b[-3] ^ 1]) + b[-2:]),
    "evaluations: deleted": gone("run/evaluations"),
    "record of what left: last line cut": every("centers/.vault/CHUM/sent.jsonl", lambda b: b[:-20]),
    "cache: every entry cut": every("centers/.cache/??/*", lambda b: b[: len(b) // 2]),
    "cache: every entry one bit": every("centers/.cache/??/*", lambda b: b[:-3] + bytes([b[-3] ^ 1]) + b[-2:]),
    "cache: notes are garbage": every("centers/.cache/digests/*", lambda b: b"\xff\x00g" * 27),
    "cache: notes name another digest": every("centers/.cache/digests/*", lambda b: b"0" * 64 + b[64:]),
    "cache: is a file": replaced_by("centers/.cache", folder=False),
    "vault: a reference, one bit": flipped("centers/.vault/CHUM/steps/*/reference/*"),
}


@pytest.mark.parametrize("damage", SAME)
def test_what_can_be_made_again_is_and_the_adapters_are_those_of_an_undisturbed_run(place, undisturbed, damage):
    SAME[damage](place)
    leader = place.start()
    assert (adapters(leader), [e["scores"] for e in leader.ledger.events("step_finished")]) == undisturbed


SENTENCES = {
    "ledger: zeros and a newline": (lines(lambda text: text + b"\0" * 9 + b"\n"), LedgerError, "is not JSON; restore"),
    "ledger: last line twice": (lines(lambda t: t + t.splitlines(keepends=True)[-1]), LedgerError, "hash chain"),
    "ledger: a digit of an old line": (lines(lambda t: t.replace(b'"seed":1', b'"seed":2', 1)), LedgerError, "hash ch"),
    "ledger: a folder": (replaced_by("run/ledger.jsonl", folder=True), LedgerError, "is a folder where"),
    "ledger: rolled back by two rounds": (rolled_back(1), RoundFailed, "it was rolled back|ledger was rolled back"),
    "bank: entry cut": (cut("run/bank/*/entry.json"), BankError, "restore it from a backup"),
    "bank: state cut": (cut("run/bank/*/state.safetensors"), BankError, "restore it from a backup"),
    "bank: state, one bit": (flipped("run/bank/*/state.safetensors"), BankError, "does not have the hash"),
    "bank: deleted": (gone("run/bank"), BankError, "restore the bank from a backup"),
    "checkpoint: cut": (cut("run/checkpoints/tumour_ctpet/round-0003.safetensors"), RoundFailed, "restore it from"),
    "checkpoint: one bit": (flipped("run/checkpoints/tumour_ctpet/round-0003.safetensors"), RoundFailed, "the hash"),
    "checkpoints: deleted": (gone("run/checkpoints"), RoundFailed, "is missing; restore it"),
    "memory: cut": (cut("run/checkpoints/*/round-0003.memory.safetensors"), RoundFailed, "restore it from a backup"),
    "memory: one bit": (flipped("run/checkpoints/*/round-0003.memory.safetensors"), RoundFailed, "the hash"),
    "config.yaml: emptied": (written("run/config.yaml", b""), LedgerError, "delete this one file"),
    "config.yaml: not YAML": (written("run/config.yaml", b"a: [1\n{"), LedgerError, "delete this one file"),
}


@pytest.mark.parametrize("damage", SENTENCES)
def test_what_cannot_be_made_again_is_a_sentence_that_names_the_file_and_the_remedy(place, damage, capsys):
    do, kind, said = SENTENCES[damage]
    do(place)
    for _ in range(2):  # the same command again meets the same sentence
        with pytest.raises(kind, match=said) as refused:
            place.start()
        assert "ledger" in str(refused.value) or str(place.path) in str(refused.value)


TOLD = {
    "vault: deleted": (gone("centers/.vault/CHUM"), {"vault", "declined.split"}),
    "vault: what compression owes, cut": (cut("centers/.vault/CHUM/steps/tumour_ctpet*/error/*"), {"vault"}),
    "vault: what compression owes, one bit": (flipped("centers/.vault/CHUM/steps/tumour_ctpet*/error/*"), {"vault"}),
    "vault: is a file": (replaced_by("centers/.vault/CHUM", folder=False), {"vault", "unrecorded", "internal", "data"}),
    "record of what left: last line changed": (
        every("centers/.vault/CHUM/sent.jsonl", lambda b: b[:-30] + b"0000000000" + b[-20:]),
        {"unrecorded"},
    ),
    "center.yaml: emptied": (written("centers/CHUM.yaml", b""), {"config"}),
    "center.yaml: not YAML": (written("centers/CHUM.yaml", b"a: [1\n{"), {"config"}),
}


@pytest.mark.parametrize("damage", TOLD)
def test_a_hospitals_damage_is_a_code_in_the_ledger_and_the_run_goes_on(place, damage):
    do, codes = TOLD[damage]
    do(place)
    leader = place.start()
    refused = leader.ledger.events("step_started", step="tumour_ctpet")[-1]["refused"]
    failed = [event["failed"] for event in leader.ledger.events("round_finished", step="tumour_ctpet")]
    assert {refused.get("CHUM"), *(row.get("CHUM") for row in failed)} & codes
    assert leader.ledger.finished("tumour_ctpet")


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EROFS], ids=["full", "read-only"])
@pytest.mark.parametrize("where", ["run", "centers/.vault", "centers/.cache"])
def test_a_disk_that_takes_nothing_ends_in_a_sentence_and_resumes_to_the_same_adapters(
    place, undisturbed, where, reason, capsys
):
    with refusing(place.path / where, reason):
        ended = run_command(lambda: place.start() and 0)
    said = capsys.readouterr().err
    assert ended == (0 if where.endswith(".cache") else 2) and "Traceback" not in said
    if ended:
        assert "same command again" in said or "read-only" in said or "unrecorded" in said
    leader = place.start()
    assert (adapters(leader), [e["scores"] for e in leader.ledger.events("step_finished")]) == undisturbed


def test_a_round_that_full_vaults_made_void_is_repeated(place, undisturbed, monkeypatch):
    real, tried = rounds._one_round, []

    def full_once(*arguments):
        tried.append(1)
        with refusing(place.path / "centers" / ".vault"):
            return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(rounds, "_one_round", full_once)
        with pytest.raises(RoundFailed, match="disks are full or read-only"):
            place.start()
    ledger = Ledger(RunFolder(place.run).ledger)
    assert [e["round"] for e in ledger.events("round_stopped")] == [STOPPED_AFTER + 1] and tried == [1]
    leader = place.start()
    assert (adapters(leader), [e["scores"] for e in leader.ledger.events("step_finished")]) == undisturbed


def restored(stopped, path, *, run, vault):
    """On new machines: the coordinator's run folder from one place, CHUM's vault from another, no cache anywhere."""
    shutil.copytree(run / "run", path / "run")
    shutil.copytree(stopped.path / "centers" / ".vault" / "CHUP", path / "centers" / ".vault" / "CHUP")
    shutil.copytree(vault / "centers" / ".vault" / "CHUM", path / "centers" / ".vault" / "CHUM")
    write_centers(path / "centers", stopped.root, CENTERS)
    return Place(path, stopped.root)


def test_a_coordinator_backed_up_before_the_vaults_goes_on_to_the_same_adapters(stopped, undisturbed, tmp_path):
    """As docs/operator/upgrades.md has it: coordinator first, then vaults; here a whole round lies between the two."""
    leader = restored(stopped, tmp_path, run=backup_of(stopped.path), vault=stopped.path).start()
    assert (adapters(leader), [e["scores"] for e in leader.ledger.events("step_finished")]) == undisturbed


def test_a_vault_backed_up_before_the_coordinator_is_behind_and_says_so(stopped, tmp_path):
    leader = restored(stopped, tmp_path, run=stopped.path, vault=backup_of(stopped.path)).start()
    [last] = leader.ledger.events("round_finished", step="tumour_ctpet", round=STOPPED_AFTER + 1)
    assert last["failed"] == {"CHUM": "vault"}, "the other hospital, whose vault is of the same day, went on"


def test_every_sentence_here_is_one_of_ours():
    assert all(issubclass(kind, FedgraftError) for _, kind, _ in SENTENCES.values())
