"""The cohort's file: hashed IDs under the vault's own key, places that stay, damage and loss that are told."""

import json

import pytest

from client.data.case import Case
from client.data.splits import Deal, Place
from client.vault.cohort import CLEARED, ERASED, FILE, RELEASED, TOMBSTONES, append, fix, hashed_id, place, read_cohort
from client.vault.ending import end_of
from client.vault.outbox import FILE as SENT
from client.vault.outbox import REPLY
from client.vault.standing import VaultError
from common.store.ledger import Ledger


def case(patient):
    return Case(patient, "CHUM", {}, None, {}, None, None, None, None)


def filled(vault):
    """A vault with a split and two patients in their places."""
    key = read_cohort(vault).key
    fix(vault, Deal(1, 3, 0.25), by="the test", key=key)
    cohort = read_cohort(vault)
    places = {cohort.hashed(case("CHUM-001")): Place(2, (0, 1)), cohort.hashed(case("CHUM-002")): Place(0)}
    place(vault, places, key=cohort.key)
    return places


def test_what_was_written_is_read_and_names_nobody(tmp_path):
    places = filled(tmp_path)
    cohort = read_cohort(tmp_path)
    assert (cohort.deal, cohort.fixed_by, cohort.places) == (Deal(1, 3, 0.25), "the test", places)
    assert cohort.fixed_at and "CHUM-00" not in (tmp_path / FILE).read_text()
    assert (tmp_path / FILE).stat().st_mode & 0o077 == 0


def test_a_patient_has_one_hash_in_a_vault_and_another_elsewhere(tmp_path):
    filled(tmp_path / "a"), filled(tmp_path / "b")
    a, b = read_cohort(tmp_path / "a"), read_cohort(tmp_path / "b")
    assert a.hashed(case("CHUM-001")) == read_cohort(tmp_path / "a").hashed(case("CHUM-001"))
    assert len({a.hashed(case("CHUM-001")), b.hashed(case("CHUM-001")), a.hashed(case("CHUM-002"))}) == 3


def test_reading_writes_nothing(tmp_path):
    assert read_cohort(tmp_path).places == {} and list(tmp_path.iterdir()) == []


def test_a_released_split_takes_the_places_along_and_the_erased_stay(tmp_path):
    filled(tmp_path)
    key = read_cohort(tmp_path).key
    append(tmp_path, ERASED, {"patient": hashed_id(key, "CHUM-003")}, key=key)
    append(tmp_path, RELEASED, {}, key=key)
    cohort = read_cohort(tmp_path)
    assert (cohort.deal, cohort.places, cohort.key) == (None, {}, key)
    assert cohort.is_erased("CHUM-003") and not cohort.is_erased("CHUM-001")


def test_a_tombstone_of_an_earlier_release_counts(tmp_path):
    (tmp_path / TOMBSTONES).write_text(json.dumps([{"patient": "CHUM-009", "center": "CHUM"}]))
    assert read_cohort(tmp_path).is_erased("CHUM-009") and not read_cohort(tmp_path).is_erased("CHUM-001")


@pytest.mark.parametrize("text", ["", "[", '["CHUM-001"]', '[{"center": "CHUM"}]'])
def test_a_damaged_list_of_an_earlier_release_stops_everything(tmp_path, text):
    (tmp_path / TOMBSTONES).write_text(text)
    with pytest.raises(VaultError, match="erased patients would train again"):
        read_cohort(tmp_path)


def damaged(path, how):
    lines = path.read_bytes().splitlines(keepends=True)
    if how == "a changed place":
        lines[-1] = lines[-1].replace(b"[2,", b"[1,")
    if how == "a line taken out":
        del lines[1]
    if how == "no JSON":
        lines[1] = b"?\n"
    path.write_bytes(b"" if how == "nothing left" else b"".join(lines))


@pytest.mark.parametrize("how", ["a changed place", "a line taken out", "no JSON", "nothing left"])
def test_damage_is_told_with_the_file_and_the_remedy(tmp_path, how):
    filled(tmp_path)
    damaged(tmp_path / FILE, how)
    with pytest.raises(VaultError, match=rf"{FILE}.*restore it from a backup of the vault"):
        read_cohort(tmp_path)


def test_a_lost_file_is_no_first_sight(tmp_path):
    Ledger(tmp_path / SENT).append(REPLY, {"code": "declined.task"})
    assert read_cohort(tmp_path).deal is None  # nobody was ever split here
    Ledger(tmp_path / SENT).append(REPLY, {"code": "ok"})
    with pytest.raises(VaultError, match=r"is not there.*client split --release"):
        read_cohort(tmp_path)


@pytest.mark.parametrize("gone", [1, 2])
def test_an_erasure_cut_off_the_end_is_missed(tmp_path, gone):
    """The chain alone would not show it, and the erased patient would train again."""
    filled(tmp_path)
    key = read_cohort(tmp_path).key
    append(tmp_path, ERASED, {"patient": hashed_id(key, "CHUM-003")}, key=key)
    append(tmp_path, CLEARED, {"cached": 0, "mapped": 0}, key=key)
    lines = (tmp_path / FILE).read_bytes().splitlines(keepends=True)
    (tmp_path / FILE).write_bytes(b"".join(lines[:-gone]))
    assert len(Ledger(tmp_path / FILE).events()) == len(lines) - gone, "as a chain it is whole"
    with pytest.raises(VaultError, match=rf"{FILE} has {len(lines) - gone} lines.*knows of {len(lines)}"):
        read_cohort(tmp_path)
    (tmp_path / FILE).unlink()
    with pytest.raises(VaultError, match=r"is not there, but .*cohort\.end is; restore it"):
        read_cohort(tmp_path)


@pytest.mark.parametrize("text", ["", "{}", '{"sha256": "0", "value": {"lines": 1, "hash": "0"}}'])
def test_a_damaged_note_of_the_end_is_told(tmp_path, text):
    filled(tmp_path)
    end_of(tmp_path / FILE).write_text(text)
    with pytest.raises(VaultError, match=r"cohort\.end.*restore it from a backup"):
        read_cohort(tmp_path)


def test_a_process_that_dies_before_the_note_loses_nothing(tmp_path):
    filled(tmp_path)
    before = end_of(tmp_path / FILE).read_bytes()
    key = read_cohort(tmp_path).key
    append(tmp_path, ERASED, {"patient": hashed_id(key, "CHUM-003")}, key=key)
    end_of(tmp_path / FILE).write_bytes(before)
    assert read_cohort(tmp_path).is_erased("CHUM-003")
    end_of(tmp_path / FILE).unlink()  # a vault of an earlier release
    assert read_cohort(tmp_path).is_erased("CHUM-003")
