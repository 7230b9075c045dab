"""MedCoSS' stages over a whole small federation: repeatable to the bit, earlier stages untouched, words nowhere."""

import copy

import pytest
import torch

from common.config.load import compose_run
from common.config.methods import WORDS
from common.model.adapted import AdaptedModel
from server.run.probe import verify_run
from tests.helpers.killing import killed_in
from tests.helpers.small import VIEW, adapters, federate, write_centers, write_cohort

STEPS = ["stage_reports", "stage_slices", "stage_ct", "tumour_ct"]
CODES = ["CHUM", "MDA"]

pytestmark = pytest.mark.slow


def small(curriculum: str):
    found = compose_run([f"curriculum={curriculum}", "name=stages"])
    found.data.split.folds, found.data.split.validation = 3, 0.34
    found.steps = {name: found.steps[name] for name in STEPS}
    last = found.steps["tumour_ct"]
    last.starts_from, last.stands_on = ("stage_ct", None) if last.stands_on is None else (None, "stage_ct")
    for step in found.steps.values():
        step.rounds, step.view, step.training.epochs = 1, copy.deepcopy(VIEW), 1
        step.centers, step.evaluate_at = list(CODES), list(CODES)
    return found


@pytest.fixture(scope="module")
def run():
    return small("medcoss")


@pytest.fixture(scope="module")
def leaders(run, tmp_path_factory):
    """The same run twice, in two folders, with vaults of their own; the second is killed in a stage that rehearses."""
    root = write_cohort(tmp_path_factory.mktemp("cohort"), {"CHUM": 6, "MDA": 7})
    found = []
    for name in ("one", "two"):
        folder = tmp_path_factory.mktemp(name)
        files = write_centers(folder / "centers", root, CODES)
        if name == "two":
            with killed_in("stage_ct", round=1):
                federate(copy.deepcopy(run), folder / "run", files)
        found.append(federate(copy.deepcopy(run), folder / "run", files))
    return found


def test_a_run_repeats_to_the_bit_though_killed_while_it_rehearses(leaders):
    one, two = (adapters(leader) for leader in leaders)
    assert list(one) == STEPS and one == two


def test_no_stage_changes_what_an_earlier_one_left(leaders, run):
    found = verify_run(leaders[0].folder, run.backbone, seed=run.seed)
    assert found.total == 0 and set(found.changed_bits) == set(STEPS)


def test_the_encoder_goes_on_and_decoders_are_new(leaders, run):
    leader = leaders[0]
    states = {name: leader.bank.get(key) for name, key in adapters(leader).items()}
    encoders = [{n: t for n, t in state.items() if n.startswith("encoder/")} for state in states.values()]
    assert all(e.keys() == encoders[0].keys() for e in encoders)
    assert len({tuple(e["encoder/layers.0.qkv.weight"].flatten()[:5].tolist()) for e in encoders}) == len(STEPS)
    heads = [{n.split(".")[0] for n in state if n.startswith("head/")} for state in states.values()]
    assert heads == [{WORDS}, {"head/CT_slices"}, {"head/CT_volume"}, set()]


def test_the_coordinator_never_learns_words(leaders, run):
    leader = leaders[0]
    state = leader.bank.get(adapters(leader)["stage_reports"])
    seeded = AdaptedModel(leader.backbone, run.steps["stage_reports"], seed=run.seed).state()
    words = [name for name in state if name.startswith(WORDS)]
    assert words and all(torch.equal(state[name], seeded[name]) for name in words)
    assert not torch.equal(state["encoder/layers.0.qkv.weight"], seeded["encoder/layers.0.qkv.weight"])


def test_stages_by_lora_are_merged_one_after_the_other(tmp_path):
    run = small("medcoss_merged")
    root = write_cohort(tmp_path / "cohort", {"CHUM": 6, "MDA": 7})
    leader = federate(run, tmp_path / "run", write_centers(tmp_path / "centers", root, CODES))
    grown = leader.ledger.events("base_grown")
    assert [event["step"] for event in grown] == STEPS[:3]
    assert [event["from"] for event in grown[1:]] == [event["base"] for event in grown[:-1]]
    assert len({event["base"] for event in grown}) == 3
    assert verify_run(leader.folder, run.backbone, seed=run.seed).total == 0
