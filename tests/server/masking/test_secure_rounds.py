"""A round that the server knows as a sum alone: equal to the plain mean, whoever drops out; nothing else is seen."""

import json

import numpy as np
import pytest

from common.privacy.masking.asked import AGREE, KEYS, MASK, REVEAL, SHARE
from tests.helpers.masked import (
    CASES,
    FEW,
    SEVEN,
    START,
    Seven,
    distance,
    phase_of,
    plain_mean,
    secure_step,
    write_seven,
)
from tests.helpers.small import code_of

ORDER_OF_PHASES = (KEYS, SHARE, MASK, AGREE, REVEAL)


@pytest.fixture
def files(tmp_path):
    return write_seven(tmp_path)


def silent(gone):
    """Replies of some centers are lost from a phase on; ``gone`` is center -> phase."""

    def tamper(sent, reply):
        phase, center = phase_of(sent), code_of(reply)
        lost = center in gone and ORDER_OF_PHASES.index(phase) >= ORDER_OF_PHASES.index(gone[center])
        return None if lost else reply

    return tamper


def test_a_secure_round_is_the_plain_mean_to_a_ten_thousandth_of_its_length(files):
    seven = Seven(files)
    state = seven.train()
    assert distance(state, plain_mean(SEVEN)) < 1e-4
    told = seven.strategy.outcome.secure
    assert (told["centers"], told["threshold"], told["cases"], told["batches"]) == (7, 5, sum(CASES.values()), 21)
    assert told["loss"] == pytest.approx(0.5, abs=1e-7) and "norms of single updates" in told["guards_off"]


@pytest.mark.parametrize(
    ("one", "two"), [(KEYS, MASK), (SHARE, SHARE), (SHARE, REVEAL), (MASK, AGREE), (MASK, MASK), (REVEAL, REVEAL)]
)
def test_two_of_seven_drop_out_and_the_sum_of_those_that_masked_stands(files, one, two):
    seven = Seven(files, tamper=silent({"H1": one, "H5": two}))
    state = seven.train()
    gone = [center for center, phase in (("H1", one), ("H5", two)) if phase in (KEYS, SHARE, MASK)]
    there = [center for center in SEVEN if center not in gone]
    assert distance(state, plain_mean(there)) < 1e-4
    assert sorted(seven.strategy.outcome.accepted) == there
    assert {*seven.strategy.outcome.rejected} == {"H1", "H5"}, "also whoever is in the sum and fell silent later"


@pytest.mark.parametrize("phase", ORDER_OF_PHASES)
def test_three_of_seven_drop_out_and_the_round_is_void_with_nothing_opened(files, phase):
    seven = Seven(files, tamper=silent(dict.fromkeys(SEVEN[:3], phase)))
    assert seven.train() is None
    assert "nothing was opened" in seven.strategy.outcome.void and not seven.strategy.outcome.secure
    assert len([1 for sent, reply in seven.seen if phase_of(sent) == REVEAL]) in ((7,) if phase == REVEAL else (0, 4))


def test_fewer_than_three_centers_are_no_secure_sum(tmp_path):
    seven = Seven(write_seven(tmp_path, SEVEN[:2]))
    assert (
        seven.train() is None and "2 centers take part, and a secure sum is of 3 or more" in seven.strategy.outcome.void
    )
    assert seven.seen == [], "nobody was asked"


def test_validation_is_told_as_a_sum_alone(files):
    seven = Seven(files)
    found = seven.validate()
    assert found["loss"] == pytest.approx(sum(CASES.values()) / 100 / 14, rel=1e-6)
    assert found["centers"] == {} and found["over"] == 7


def test_who_has_too_few_patients_to_score_is_in_no_sum_and_voids_none(files, monkeypatch):
    monkeypatch.setitem(FEW, "H0", 4)
    monkeypatch.setitem(FEW, "H2", 0)
    seven = Seven(files)
    seven.strategy.validation |= {"H5": 0}  # it said so when it enrolled, and is not asked
    found = seven.validate()
    assert found["over"] == 4 and found["loss"] == pytest.approx((55 + 198 + 30 + 500) / 100 / 8, rel=1e-6)
    assert seven.strategy.outcome.rejected == dict.fromkeys(("H0", "H2", "H5"), "declined.cases")


def arrays_of(reply):
    return {key: array.numpy() for record in reply.content.array_records.values() for key, array in record.items()}


def test_what_the_server_sees_holds_no_update_and_two_rounds_never_share_a_mask(files):
    """The same updates are summed in two runs: neither bytes of a reply nor their differences say one of them."""
    masked = {}
    for run in ("aa", "bb"):
        seven = Seven(files, run=run)
        seven.train()
        for sent, reply in seven.seen:
            status = dict(reply.content.config_records["status"])
            assert set(status) == {"center", "code", "seconds", "round", "order"} and status["seconds"] == 0.0
            assert not reply.content.array_records["sums"], "losses and counts are under masks, too"
            names = set(arrays_of(reply))
            kinds = {array.dtype.name for array in arrays_of(reply).values()}
            assert kinds <= {"uint8", "int32", "int64"} and all(name.startswith("./mask") for name in names)
            if phase_of(sent) == MASK:
                masked[run, code_of(reply)] = arrays_of(reply)["./masked/update"]
    values = list(masked.values())
    assert len(values) == 14
    for at, one in enumerate(values):
        for other in values[:at]:
            assert (one == other).mean() < 0.2 and (one + other == 0).mean() < 0.2
    spread = np.concatenate(values).astype(np.float64)
    assert np.abs(spread).mean() == pytest.approx(2**30, rel=0.25), "masked numbers fill the whole range"


# ------------------------------------------------------------------------------------------------------ a lying server


def lying(change, *, phase, to=SEVEN):
    """Orders of a phase are changed on their way to some centers: what a server could send."""

    def before(messages):
        for message in messages:
            config = message.content.config_records["config"]
            if "masking" not in config or phase_of(message) != phase:
                continue
            if message.metadata.dst_node_id - 100 in [SEVEN.index(code) for code in to]:
                from flwr.app import ConfigRecord, RecordDict

                said = json.loads(str(config["masking"]))
                change(said)
                own = ConfigRecord({**config, "masking": json.dumps(said)})
                message.content = RecordDict({**message.content, "config": own})
        return messages

    return before


def swapped_keys(said):
    said["adverts"]["H1"] = said["adverts"]["H1"][:64][::-1] + said["adverts"]["H1"][64:]


def one_less(said):
    del said["carried"]["H6"]


def another_question(said):
    said["question"] = "0" * 64


def fewer_sharers(said):
    said["shared"] = said["shared"][:4]


@pytest.mark.parametrize(
    ("change", "phase"),
    [(swapped_keys, SHARE), (fewer_sharers, MASK), (another_question, MASK), (another_question, AGREE)],
)
def test_a_server_that_lies_is_refused_by_every_center_it_lies_to(files, change, phase):
    seven = Seven(files, before=lying(change, phase=phase))
    assert seven.train() is None
    assert set(seven.strategy.outcome.rejected.values()) == {"declined.masking"}
    assert not [reply for sent, reply in seven.seen if phase_of(sent) == REVEAL and arrays_of(reply)]


def test_a_server_with_two_stories_of_the_survivors_gets_no_shares(files):
    """Three centers hear that H6 dropped out and four that it did not: neither list has five signatures."""
    seven = Seven(files, before=lying(one_less, phase=AGREE, to=SEVEN[:3]))
    assert seven.train() is None
    revealed = [reply for sent, reply in seven.seen if phase_of(sent) == REVEAL]
    assert len(revealed) == 7 and not any(arrays_of(reply) for reply in revealed)
    assert set(seven.strategy.outcome.rejected.values()) == {"declined.masking"}


def test_the_same_question_is_summed_with_the_same_centers_again_or_not_at_all(files):
    first = Seven(files).train()
    again = Seven(files, run="cd").train()
    assert all((first[name] == again[name]).all() for name in START), "a resumed round ends with the same bits"
    without = Seven(files, tamper=silent({"H6": KEYS}))
    assert without.train() is None, "the difference to the first sum would be H6's update"
    assert {code for center, code in without.strategy.outcome.rejected.items() if center != "H6"} == {
        "declined.masking"
    }
    assert Seven(files, tamper=silent({"H6": KEYS})).train(2) is not None, "another round is another question"


def test_a_secure_step_tells_nothing_without_masks_and_others_tell_nothing_with_them(files):
    seven = Seven(files)
    delivery = seven._deliver(seven.strategy.training_orders(1, dict(START)))
    seven.strategy.aggregate(1, delivery.messages)
    assert set(seven.strategy.outcome.rejected.values()) == {"declined.masking"}
    delivery = seven._deliver(seven.strategy.validation_orders(1, dict(START)))
    codes = {str(reply.content.config_records["status"]["code"]) for reply in delivery.messages}
    assert codes == {"declined.masking"}


def test_an_update_that_claims_more_cases_than_all_have_registered_is_noticed_in_the_sum(files):
    seven = Seven(files)
    seven.strategy.cases = dict.fromkeys(SEVEN, 60)
    assert seven.train() is None
    assert set(seven.strategy.outcome.rejected.values()) <= {"no_reply", "wire"}, (
        "a center beyond the most says so itself"
    )
    seven = Seven(files, step=secure_step(quorum=0.5))
    seven.strategy.cases |= {"H0": 1, "H1": 1}
    assert seven.train(3) is None and "one of them claims cases that it has not" in seven.strategy.outcome.void


def test_a_center_without_its_partners_keys_takes_no_part(tmp_path, files):
    (tmp_path / "keys" / "H3.pub").unlink()
    seven = Seven(files)
    assert seven.train() is None, "nobody knows H3 from before the round"
    assert seven.strategy.outcome.rejected["H0"] == "declined.masking"


def test_secrets_are_gone_after_a_sum(tmp_path, files):
    Seven(files).train()
    left = sorted(path.name for path in (tmp_path / ".vault" / "H0" / "masking").iterdir() if path.suffix == ".json")
    assert left == ["answered.json"]
