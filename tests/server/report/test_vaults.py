"""Hospitals that went on without their vaults, or knew more than the ledger, and disks that were full."""

from server.report.reading.record import read_run
from server.report.story import warnings
from server.run.narration import Narrator


def said(events, change):
    for event in events:
        if event["kind"] == "round_finished":
            change(event)
    return [told for told in warnings(read_run(events)) if "vault" in told or "disks" in told]


def test_a_run_without_losses_says_nothing(events):
    assert said(events, lambda event: None) == []


def test_who_went_on_afresh_and_who_was_ahead_is_named_with_the_rounds(events):
    def change(event):
        if event["step"] == "tumour_ct" and event["round"] in (3, 4):
            event["train"]["CHUM"]["afresh"] = True
        if (event["step"], event["round"]) == ("relapse", 2):
            event["train"]["MDA"]["ahead"] = 4

    afresh, ahead = sorted(said(events, change))
    assert afresh.startswith("CHUM went on afresh in rounds 3 and 4 of ") and "accepted that" in afresh
    assert ahead.startswith("MDA's vault was ahead of the ledger in round 2 of ") and "trained again" in ahead


def test_a_round_that_counts_although_a_disk_was_full_is_told_on_both_sides(events):
    def change(event):
        if (event["step"], event["round"]) == ("tumour_ct", 2):
            event["failed"] = {"CHUV": "disk", "CHUP": "unrecorded", "MDA": "norm"}

    [told] = said(events, change)
    assert "Round 2 counts without CHUP, CHUV, whose disks are full" in told and "not repeated" in told
    [event] = [e for e in events if e["kind"] == "round_finished" and "CHUP" in e["failed"]]
    lines = []
    Narrator(say=lines.append).round_finished({**event, "void": False}, of=6)
    assert told.partition(": ")[2] in lines[0]
    lines.clear()
    Narrator(say=lines.append).round_finished({**event, "void": True, "why_void": "1 of 2"}, of=6)
    assert "counts without" not in lines[0]
