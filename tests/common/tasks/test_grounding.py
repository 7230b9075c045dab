"""Grounding: GLIP's focal loss by golden values, cells that learn boxes, scores that only miss what is missed."""

import pytest
import torch

from common.adapters.grounding import NO_WORD
from common.config.adapter import Adapter
from common.config.task import GroundingTask
from common.data.batch import Batch
from common.tasks import build_task, question_of
from common.tasks.grounding import token_focal
from common.tasks.regions import Regions
from tests.helpers.small import federate, small_run

SIZE, GRID, WORDS = 16, 4, 2


def target(boxes, *, at=-1, structures=2, known=None):
    table = torch.full((1, 16, 7), -1.0)
    for row, box in enumerate(boxes):
        table[0, row] = torch.tensor(box, dtype=torch.float32)
    known = torch.ones(1, structures) if known is None else torch.tensor([known])
    return {"boxes": table, "known": known, "size": torch.full((1, 3), float(SIZE)), "slice": torch.tensor([at])}


def output(*, structures=2, sides=6, seed=0):
    """Random words, the second phrase of one word only, and boxes of one cell each way."""
    draw = torch.Generator().manual_seed(seed)
    scores = torch.randn(structures, WORDS, GRID, GRID, GRID, generator=draw)
    scores[1, 1] = NO_WORD
    return torch.cat([scores.flatten(0, 1), torch.zeros(sides, GRID, GRID, GRID)])[None]


def certain(box, of=0, *, sides=6):
    """An output that is sure of one box, at the cell of its middle, and of nothing else."""
    found = output(sides=sides)
    found[:, : 2 * WORDS] = torch.where(found[:, : 2 * WORDS] < -1e4, found[:, : 2 * WORDS], torch.tensor(-12.0))
    low, high = torch.tensor(box[:3]).float(), torch.tensor(box[3:]).float()
    cell = ((low + high) / 2 / 4).long()
    center = (cell + 0.5) * 4
    found[0, of * WORDS : of * WORDS + (2 if of == 0 else 1), cell[0], cell[1], cell[2]] = 12.0
    reach = torch.cat([(center - low)[-sides // 2 :], (high - center)[-sides // 2 :]]) / 4
    found[0, -sides:, cell[0], cell[1], cell[2]] = reach.log()
    return found


def test_golden_focal_loss_of_words():
    losses = token_focal(torch.tensor([2.0, -1.0, 0.3]), torch.tensor([1.0, 0.0, 1.0]))
    assert losses.tolist() == pytest.approx([0.000451, 0.016994, 0.025098], abs=1e-6)
    assert losses.sum().item() == pytest.approx(0.042543, abs=1e-6)


def test_the_nearest_cells_learn_a_box_and_the_smallest_box_wins():
    regions = Regions(output()[0], [SIZE] * 3, structures=2, sides=6)
    truth = torch.tensor([[0.0, 0, 0, 16, 16, 16], [4.0, 4, 4, 8, 8, 8], [12.1, 12.1, 12.1, 12.9, 12.9, 12.9]])
    mine = regions.assigned(truth).reshape(GRID, GRID, GRID)
    assert mine[1, 1, 1] == 1 and mine[3, 3, 3] == 2  # a box between the cells' middles goes to the nearest
    assert mine[2, 2, 2] == 0 and mine[0, 0, 0] == -1  # far from the large box's middle nothing is learned
    assert (regions.assigned(torch.zeros(0, 6)) == -1).all()


@pytest.mark.parametrize("of", [0, 1])
def test_what_is_surely_right_costs_nothing_and_scores_one(of):
    task, box = build_task(GroundingTask()), [3, 4, 4, 7, 9, 8]
    batch = Batch({}, {}, target([[of, *box]]))
    sure = certain(box, of)
    sums = task.sums(task.observe(sure, batch))
    found = task.metrics(sums)
    assert found["ap"] == pytest.approx(1.0) and found[f"ap_{['GTVp', 'GTVn'][of]}"] == pytest.approx(1.0)
    assert found[f"ap_{['GTVn', 'GTVp'][of]}"] is None
    assert task.loss(sure, batch).item() == pytest.approx(0.0, abs=1e-3)


def test_boxes_in_a_slice_are_flat_and_only_its_cells_count():
    task, flat = build_task(GroundingTask(slices=True)), [5, 3, 4, 6, 9, 8]
    batch = Batch({}, {}, target([[0, *flat]], at=5))
    sure = certain(flat, sides=4)
    [record] = task.observe(sure, batch)
    best = record["box"][record["score"].argmax()]
    assert best.tolist() == pytest.approx(flat, abs=1e-4)
    assert task.metrics(task.sums([record]))["ap"] == pytest.approx(1.0)
    elsewhere = sure.clone()
    elsewhere[:, :, 3] = torch.randn(elsewhere[:, :, 3].shape)
    assert torch.equal(task.loss(elsewhere, batch), task.loss(sure, batch))  # another layer of cells is not looked at


def test_a_structure_that_a_center_does_not_outline_is_neither_learned_nor_scored():
    task, batch = build_task(GroundingTask()), Batch({}, {}, target([[0, 2, 2, 2, 6, 6, 6]], known=[1.0, 0.0]))
    logits = output().requires_grad_(True)
    task.loss(logits, batch).backward()
    assert logits.grad is not None and (logits.grad[:, WORDS : 2 * WORDS] == 0).all()
    assert (logits.grad[:, :WORDS] != 0).any()
    assert {*task.observe(logits.detach(), batch)[0]["of"].tolist()} == {0.0}


def test_no_box_is_no_nan_and_a_false_alarm_counts():
    task, batch = build_task(GroundingTask()), Batch({}, {}, target([]))
    logits = output().requires_grad_(True)
    loss = task.loss(logits, batch)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()
    sums = task.sums(task.observe(logits.detach(), batch))
    assert sums["found"].sum() == 0 and sums["wrong"].sum() > 0 and task.metrics(sums)["ap"] is None


def test_sums_of_two_centers_are_those_of_both():
    task = build_task(GroundingTask())
    batches = [Batch({}, {}, target([[0, 2, 2, 2, 6 + n, 6, 6]])) for n in range(3)]
    each = [record for n, batch in enumerate(batches) for record in task.observe(output(seed=n), batch)]
    together, apart = task.sums(each), [task.sums(each[:1]), task.sums(each[1:])]
    assert all((together[name] == apart[0][name] + apart[1][name]).all() for name in together)
    assert all(together[name].shape == task.sum_shapes[name] for name in together)


def test_the_question_is_about_the_structures():
    assert question_of(GroundingTask(structures=["b", "a"])) == ("grounding", "a+b")


def test_words_that_are_none_teach_nothing():
    task, batch = build_task(GroundingTask()), Batch({}, {}, target([[1, 2, 2, 2, 6, 6, 6]]))
    logits = output().requires_grad_(True)
    task.loss(logits, batch).backward()
    assert (logits.grad[:, 3] == 0).all() and torch.isfinite(logits.grad).all()
    assert task.likelihood_loss(output(), batch).item() > 0


def test_a_federation_learns_boxes_and_scores_them(tmp_path, small_centers):
    run = small_run(steps=["tumour_ct"], centers=["CHUM", "MDA"], rounds=1)
    step = run.steps["tumour_ct"]
    step.task, step.adapter = GroundingTask(phrases={"GTVp": "primary tumor"}), Adapter({})
    leader = federate(run, tmp_path / "run", small_centers)
    [event] = leader.ledger.events("step_finished")
    rows = [row for row in event["scores"] if row["metric"] == "ap"]
    assert {row["center"] for row in rows} >= {"CHUM", "MDA", "pooled"}
    assert all(row["value"] is None or 0 <= row["value"] <= 1 for row in rows)
    assert {name.partition("/")[0] for name in leader.bank.get(leader.bank.head("tumour_ct"))} == {"head"}
