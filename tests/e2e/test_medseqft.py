"""MedSeqFT over a whole small federation: the original, two tasks in two stages each, one base a stage, kept cases."""

import copy
import shutil

import pytest

from client.center.center import Center
from client.methods.stages.similarity import losses, most_similar
from common.config.load import compose_run
from common.config.rules import broken_rules
from common.data.sources import source_of
from common.errors import RoundFailed
from server import curriculum
from server.bases.grown import GROWN
from server.learning import rounds
from server.run.probe import verify_run
from tests.e2e.test_bases import forget_models
from tests.e2e.test_resume import Killed, dies
from tests.helpers.small import VIEW, adapters, federate, write_centers, write_cohort

CODES = ["CHUM", "MDA"]
STEPS = ["original", "gtvp_fit", "gtvp", "gtvn_fit", "gtvn"]


def a_run(select="similarity", cases=2):
    found = compose_run(["curriculum=medseqft", "name=sequence"])
    found.data.split.folds, found.data.split.validation = 3, 0.34
    found.steps = {name: found.steps[name] for name in STEPS}
    for step in found.steps.values():
        step.rounds, step.view, step.training.epochs = 1, copy.deepcopy(VIEW), 1
        step.centers, step.evaluate_at = list(CODES), list(CODES)
        for spec in step.methods:
            if spec.kind == "medseqft":
                spec.select, spec.cases, spec.draws, spec.share = select, cases, 3, 0.5
    assert broken_rules(found) == []
    return found


@pytest.fixture(scope="module", autouse=True)
def trained_states_are_kept():
    """On so few cases the start is often the best; here each step's last round is kept, so that bases grow."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rounds, "best_round", lambda events: events[-1])
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("cohort"), {"CHUM": 6, "MDA": 7})


@pytest.fixture(scope="module")
def sequence(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    return folder, federate(a_run(), folder / "run", write_centers(folder / "centers", root, CODES))


def test_every_stage_grows_one_base_that_all_centers_make(sequence):
    _, leader = sequence
    keys = adapters(leader)
    grown = {event["step"]: event for event in leader.ledger.events(GROWN)}
    assert list(keys) == STEPS and list(grown) == ["original", "gtvp_fit", "gtvp", "gtvn_fit"]
    assert grown["gtvp"]["merged"] == [keys["original"], keys["gtvp"]], "tasks are refined into the base, fits are not"
    assert all(event["centers"] == dict.fromkeys(CODES, "ok") for event in grown.values())
    bases = {name: leader.bank.entry(key).base for name, key in keys.items()}
    assert bases["gtvp_fit"] == bases["gtvp"] == grown["original"]["base"]
    assert bases["gtvn_fit"] == bases["gtvn"] == grown["gtvp"]["base"] and bases["original"] == leader.base
    assert not any(event["failed"] for event in leader.ledger.events("round_finished"))


def test_nothing_that_was_learned_before_changes_by_a_bit(sequence):
    _, leader = sequence
    found = verify_run(leader.folder, leader.run.backbone, seed=leader.run.seed)
    assert found.total == 0 and set(found.changed_bits) == set(STEPS)


def test_refinement_trains_low_rank_updates_alone_and_keeps_the_fitted_decoder(sequence):
    _, leader = sequence
    keys = adapters(leader)
    fitted, refined = leader.bank.get(keys["gtvp_fit"]), leader.bank.get(keys["gtvp"])
    decoder = [name for name in refined if name.startswith("decoder/")]
    assert decoder and all(bool((refined[name] == fitted[name]).all()) for name in decoder)
    sent = leader.ledger.events("round_finished", step="gtvp")[0]
    assert max(ways["up"] for ways in sent["bytes"].values()) < 0.5 * max(
        ways["up"] for ways in leader.ledger.events("round_finished", step="gtvp_fit")[0]["bytes"].values()
    )


def test_kept_cases_are_two_for_each_earlier_task_and_stay_in_the_vault(sequence):
    folder, _ = sequence
    for code in CODES:
        kept = list((folder / "centers" / ".vault" / code / "steps").glob("*/memory-gtvp-similarity-2.json"))
        assert len(kept) == 1 and kept[0].read_text().count('"patient"') == 2


def test_killed_after_a_merge_it_ends_with_the_same_digests(sequence, root, tmp_path, monkeypatch):
    _, undisturbed = sequence
    files = write_centers(tmp_path / "centers", root, CODES)
    with monkeypatch.context() as patched:
        patched.setattr(curriculum, "run_step", dies(curriculum.run_step, at=4))
        with pytest.raises(Killed):
            federate(a_run(), tmp_path / "run", files)
    forget_models()
    leader = federate(a_run(), tmp_path / "run", files)
    assert adapters(leader) == adapters(undisturbed)


def test_a_center_that_lost_its_stages_gets_them_and_the_teacher_again(sequence, root, tmp_path, monkeypatch):
    _, undisturbed = sequence
    files = write_centers(tmp_path / "centers", root, CODES)
    with monkeypatch.context() as patched:
        patched.setattr(curriculum, "run_step", dies(curriculum.run_step, at=5))
        with pytest.raises(Killed):
            federate(a_run(), tmp_path / "run", files)
    shutil.rmtree(tmp_path / "centers" / ".vault" / "MDA" / "bases")
    forget_models()
    assert adapters(federate(a_run(), tmp_path / "run", files)) == adapters(undisturbed)


def test_a_buffer_larger_than_the_site_is_one_sentence(root, tmp_path, caplog):

    with pytest.raises(RoundFailed, match="no round had enough usable updates"):
        federate(a_run(cases=40), tmp_path / "run", write_centers(tmp_path / "centers", root, CODES))
    assert "Method medseqft keeps 40 cases of 'gtvp', and this center has" in caplog.text


def test_scores_depend_neither_on_order_nor_on_who_computes_them(sequence):
    folder, leader = sequence
    key = adapters(leader)["original"]
    step = leader.bank.entry(key).step
    order = leader.order(leader.run.steps["original"])
    order.state = leader.bank.get(key)
    found = {}
    for code in CODES:
        center = Center.open(folder / "centers" / f"{code}.yaml")
        model, _ = center.model(order)
        cases = center.case_set(order, "train", model)
        found[code] = losses(model, cases, draws=3)
        turned = Turned(cases, list(range(len(cases.cases)))[::-1])
        assert losses(model, turned, draws=3) == found[code], "whatever the order of cases"
        alone = Turned(cases, [1])
        assert losses(model, alone, draws=3)[cases.cases[1].patient] == found[code][cases.cases[1].patient]
    other = Center.open(folder / "centers" / "MDA.yaml")
    model, _ = other.model(order)
    theirs = Center.open(folder / "centers" / "CHUM.yaml").case_set(order, "train", model)
    assert losses(model, theirs, draws=3) == found["CHUM"], "whoever computes them"
    assert len({*found["CHUM"].values()}) > 1 and step.task.sources == ["CT"] and source_of("CT").form == "volume"


class Turned:
    """Some of a set's cases, in another order."""

    def __init__(self, cases, places):
        self._cases, self._places = cases, places
        self.cases = [cases.cases[place] for place in places]

    def collate(self, positions):
        return self._cases.collate([self._places[position] for position in positions])


def test_ties_are_broken_by_name():
    assert most_similar({"c": 0.5, "a": 0.5, "b": 0.25, "d": 0.5}, kept=2) == ["a", "b"]
    assert most_similar({"d": 0.5, "c": 0.5, "b": 0.25, "a": 0.5}, kept=3) == ["a", "b", "c"]
