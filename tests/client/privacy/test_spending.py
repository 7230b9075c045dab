"""The privacy account: composed over everything, written before noise is drawn, and never short after a kill."""

import os
import shutil
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from client.policy.policy import Ceiling
from client.privacy import spending
from client.privacy.spending import FILE, Account, AccountProblem, Entry, begin, charge, read_account
from client.vault import ending, lock, outbox
from client.vault.ending import end_of
from common import files
from common.errors import PolicyRefusal
from common.privacy.accounting import Release, epsilon
from common.store import ledger, sealed

DELTA = 1 / 720
PASS = Release(noise=1.405, rate=8 / 72, draws=450)  # FEDERATION 3: n = 72, epsilon 8
ROUND = replace(PASS, draws=9)


def entry(number=1, *, release=ROUND, **others):
    return Entry(f"run-{number % 2}", "tumour_ct", number, f"{number:064x}", (release,), **others)


def test_a_charge_is_on_the_account_and_the_same_question_is_free(tmp_path):
    assert read_account(tmp_path) == Account()
    assert charge(tmp_path, entry(1)) and charge(tmp_path, entry(2))
    assert not charge(tmp_path, entry(1)), "the same digest draws the same noise"
    assert charge(tmp_path, entry(1, release=replace(ROUND, noise=1.0))), "other noise under a known digest is fresh"
    account = read_account(tmp_path)
    assert [one.round for one in account.charges] == [1, 2, 1] and account.charges[0] == entry(1)
    assert account.releases == (ROUND, ROUND, replace(ROUND, noise=1.0)) and account.is_private
    assert (tmp_path / FILE).stat().st_mode & 0o077 == 0


def test_what_is_spent_is_composed_over_steps_runs_and_restarts(tmp_path):
    """Fifty rounds of nine draws are the one release of 450 draws, whose epsilon is published."""
    for number in range(50):
        charge(tmp_path, entry(number))
    assert epsilon(read_account(tmp_path).releases, DELTA, "rdp") == epsilon([PASS], DELTA, "rdp")
    assert epsilon([PASS], DELTA, "rdp") == pytest.approx(8.0, abs=0.02)


def test_the_round_that_would_overspend_is_refused_before_it_begins(tmp_path):
    ceiling = Ceiling(2.0, DELTA)
    number = 0
    with pytest.raises(
        PolicyRefusal, match=r"from epsilon 1\.\d\d to 2\.\d\d at delta .* it may spend 2 over every"
    ) as refusal:
        for number in range(1, 100):
            charge(tmp_path, entry(number), ceiling)
    assert refusal.value.code == "declined.budget"
    releases = read_account(tmp_path).releases
    assert len(releases) == number - 1
    assert epsilon(releases, DELTA) <= 2.0 < epsilon([*releases, ROUND], DELTA)
    assert not charge(tmp_path, entry(1), ceiling), "what was paid for is answered again"
    assert charge(tmp_path, entry(number), Ceiling(3.0, DELTA)), "a higher ceiling lets it go on"
    with pytest.raises(PolicyRefusal):
        charge(tmp_path, entry(number + 1), Ceiling(1.0, DELTA))


def test_noise_from_a_known_seed_is_stamped_for_good_and_refused_under_a_ceiling(tmp_path):
    with pytest.raises(PolicyRefusal, match="known seed, which protects nobody") as refusal:
        charge(tmp_path, entry(seeded=True), Ceiling(8.0, DELTA))
    assert refusal.value.code == "declined.privacy" and read_account(tmp_path) == Account()
    charge(tmp_path, entry(1, seeded=True))
    charge(tmp_path, entry(2))
    assert not read_account(tmp_path).is_private


def test_a_clock_that_was_set_back_stops_the_account(tmp_path):
    charge(tmp_path, entry(1))
    now = datetime.now(UTC)
    with pytest.raises(AccountProblem, match=r"the clock was set back.*Set the clock\.$") as problem:
        charge(tmp_path, entry(2), now=now - timedelta(minutes=10))
    assert problem.value.code == "vault.privacy"
    assert charge(tmp_path, entry(2), now=now - timedelta(minutes=1)), "as a time server may set it"


def changed(folder):
    path = folder / FILE
    path.write_text(path.read_text().replace('"noise":1.405', '"noise":9.405', 1))


def cut(folder):
    path = folder / FILE
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


def taken_out(folder):
    path = folder / FILE
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:1], *lines[2:]]))


@pytest.mark.parametrize(
    "damage",
    [
        changed,
        cut,
        taken_out,
        lambda folder: (folder / FILE).unlink(),
        lambda folder: (folder / FILE).write_bytes(b""),
        lambda folder: end_of(folder / FILE).unlink(),
        lambda folder: end_of(folder / FILE).write_text("{}"),
    ],
)
def test_an_account_that_is_changed_cut_or_gone_draws_nothing_more(tmp_path, damage):
    charge(tmp_path, entry(1))
    charge(tmp_path, entry(2))
    damage(tmp_path)
    for question in (entry(1), entry(3)):
        with pytest.raises(AccountProblem, match=r"cannot be read \(.*Restore it from a backup") as problem:
            charge(tmp_path, question)
        assert problem.value.code == "vault.privacy"


def test_a_new_account_says_how_much_left_before_it(tmp_path):
    (tmp_path / outbox.FILE).write_bytes(b"{}\n{}\n{}\n")
    charge(tmp_path, entry(1))
    assert read_account(tmp_path).replies_before == 3 and not read_account(tmp_path).lost
    begin(tmp_path / "other", lost=True)
    assert read_account(tmp_path / "other").lost


# ------------------------------------------------------------------------------------------------------------- killed

WRITERS = {module.__file__ for module in (spending, ending, lock, outbox, files, ledger, sealed)}


def drawn_until_killed(folder, question, line):
    """In a process of its own: charge, then draw; it dies like a killed one at the n-th line of whoever writes.

    Returns whether it came to its end, and whether the noise was drawn.
    """
    child = os.fork()
    if child == 0:
        left = line

        def trace(frame, event, argument):
            nonlocal left
            if frame.f_code.co_filename not in WRITERS:
                return None
            if event == "line":
                left -= 1
                if left < 0:
                    os._exit(9)
            return trace

        sys.settrace(trace)
        try:
            charge(folder, question)
            (folder / "drawn").touch()
        finally:
            sys.settrace(None)
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == 0, (folder / "drawn").exists()


@pytest.mark.parametrize(
    ("earlier", "every"),
    [(2, 17), pytest.param(0, 1, marks=pytest.mark.slow), pytest.param(2, 1, marks=pytest.mark.slow)],
)
def test_a_kill_between_any_two_lines_never_under_counts(tmp_path, earlier, every):
    whole = tmp_path / "whole"
    whole.mkdir()
    for number in range(earlier):
        charge(whole, entry(number))
    question, killed, is_done = entry(earlier), 0, False
    states = set()
    while not is_done:
        folder = tmp_path / f"killed-{killed}"
        shutil.copytree(whole, folder)
        is_done, is_drawn = drawn_until_killed(folder, question, killed)
        is_charged = read_account(folder).holds(question)
        assert is_charged or not is_drawn
        states.add((is_charged, is_drawn))
        assert charge(folder, question) == (not is_charged), "after the restart it is paid for once, and no more"
        assert read_account(folder).charges == (*map(entry, range(earlier)), question)
        shutil.rmtree(folder)
        killed += every
    assert killed > 100 and states >= {(False, False), (True, True)} and ((True, False) in states or every > 1)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
@example(0)
@example(1)
def test_a_write_that_stops_at_any_byte_is_a_line_that_was_paid_or_none(tmp_path_factory, missing):
    """A full disk or a power cut leaves a prefix of the last line: noise is only drawn after all of it is there."""
    folder = tmp_path_factory.mktemp("torn")
    for number in range(2):
        charge(folder, entry(number))
    path, note = folder / FILE, end_of(folder / FILE)
    before, noted = path.read_bytes(), note.read_bytes()
    charge(folder, entry(2))
    after = path.read_bytes()
    length = max(len(after) - missing, len(before))
    path.write_bytes(after[:length])
    note.write_bytes(noted)
    held = read_account(folder).holds(entry(2))
    assert held == (length >= len(after) - 1), "only the line's end may be missing"
    assert charge(folder, entry(2)) == (not held)
    charge(folder, entry(3))
    assert [one.round for one in read_account(folder).charges] == [0, 1, 2, 3]
    assert path.read_bytes().count(b"\n") == after.count(b"\n") + 1, "whichever line's end was missing is there"
