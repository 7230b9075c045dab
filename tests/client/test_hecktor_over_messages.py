"""HECKTOR's own sizes and missingness at a hospital's minimum of 5: no step of a shipped curriculum is refused.

Orders travel as Flower messages to the hospital's own app, in the order of the curriculum, all to one vault: `describe`
of every step, the sums of every exact one, and test scores with curves. What is below the minimum altogether (HMR has
18 patients, two of them with HPV) is declined as such; the gate itself refuses nothing.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict

from client.app import app
from client.center.center import Center
from client.center.models import initial_state
from common.backbones import backbone_digest, load_backbone
from common.config.load import compose_run
from common.config.run import Split
from common.exact.columns import scaling_from
from common.exact.step import BETA, MEAN, SCALE, objective_of
from common.protocol.messages import TOO_FEW_CASES, Order, Reply
from common.protocol.wire import pack_order, unpack_reply
from common.tasks.cells import few
from common.tasks.cuts import GRID
from simulations.virtual.local_grid import LocalGrid
from tests.client.privacy.test_rows import HECKTOR
from tests.helpers.small import CLINICAL, VIEW, forget, write_centers, write_cohort

CURRICULA = ["diagnosis", "exact", "pemma", "quickstart", "smoke", "unicon"]
CENTERS = ["CHUP", "HMR"]  # the one with most recorded that is of usual size, and the smallest
MINIMUM = 5
pytestmark = [pytest.mark.slow, pytest.mark.e2e]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Images of 16 voxels a side; the tables say no more than HECKTOR's do (FACTS A6)."""
    root = write_cohort(tmp_path_factory.mktemp("hecktor"), {code: HECKTOR[code][0] for code in CENTERS})
    rng, clinical, endpoint = np.random.default_rng(6), [CLINICAL], ["PatientID,Relapse,RFS"]
    for code in CENTERS:
        count, lacking = HECKTOR[code]
        absent = [set(rng.permutation(count)[:number].tolist()) for number in lacking]
        outcome = set(rng.permutation(count)[: round(0.93 * count)].tolist())  # 489 of 524
        for place in range(count):
            patient = f"{code}-{place + 1:03d}"
            weight, tobacco, alcohol, hpv = (
                "" if place in gone else value
                for gone, value in zip(absent, (rng.integers(50, 110), *rng.integers(0, 2, 3)), strict=True)
            )
            status = "" if place in absent[2] else rng.integers(0, 3)
            clinical.append(
                f"{patient},1,1,1,{'MF'[place % 2]},{rng.integers(32, 90)},{weight},{tobacco},{alcohol},{status},"
                f"{hpv},,{place % 2}"
            )
            if place in outcome:
                endpoint.append(f"{patient},{int(rng.random() < 0.2)},{rng.integers(100, 2500)}")
    (root / "hecktor2022_clinical_info_training.csv").write_text("\n".join(clinical) + "\n")
    (root / "hecktor2022_endpoint_training.csv").write_text("\n".join(endpoint) + "\n")
    return root


def answered(hospital, order: Order, kind: str) -> Reply:
    context = Context(run_id=1, node_id=7, node_config={"center": str(hospital)}, state=RecordDict(), run_config={})
    return unpack_reply(app(Message(pack_order(order), dst_node_id=7, message_type=kind), context).content)


def orders_of(name, hospital):
    """One order for each step and control, whichever task, modalities and part."""
    run = compose_run([f"curriculum={name}", "backbone=tiny", "name=hecktor"])
    base = backbone_digest(load_backbone(run.backbone))
    for step in (run.steps | run.controls).values():
        step.view = VIEW
        order = Order(step, 1, 0, run.backbone, base, Split(folds=5, validation=0.2), run="ab" * 32)
        yield replace(order, state=initial_state(Center.open(hospital).config, order))


def exact_questions(hospital, order: Order):
    """Grid, moments (or Gram sums), and Newton's first point."""
    if order.step.task.kind == "prognosis":
        yield answered(hospital, replace(order, subset=GRID), "query.sums")
    first = answered(hospital, order, "query.sums")
    yield first
    objective = objective_of(order.step)
    if objective is None or not first.is_usable:
        return
    scaling = scaling_from(first.sums)
    columns = next(value.shape[-1] for name, value in order.state.items() if name.endswith("/weight"))
    known = {MEAN: scaling.mean, SCALE: scaling.scale, BETA: np.zeros(objective.shape(columns))}
    yield answered(hospital, replace(order, round=1, known=known), "query.sums")


@pytest.mark.parametrize("center", CENTERS)
@pytest.mark.parametrize("curriculum", CURRICULA)
def test_no_step_of_a_curriculum_is_refused(root, tmp_path, curriculum, center):
    LocalGrid({}, workers=0).close()
    forget()
    floor = {"minimum_cell": MINIMUM, "minimum_cases": MINIMUM, "minimum_batch": 1}
    hospital = write_centers(tmp_path, root, [center], **floor)[center]
    asked = 0
    for order in orders_of(curriculum, hospital):
        opened = Center.open(hospital)
        train, test = (len(opened.part(order, part)) for part in ("train", "test"))
        replies = [answered(hospital, order, "query.describe")]
        if order.step.federation.kind in ("newton", "ridge", "exact") and train >= MINIMUM:
            replies += exact_questions(hospital, order)
        for reply in replies:
            allowed = {"ok"} if train >= MINIMUM else {"ok", TOO_FEW_CASES}
            assert reply.code in allowed, (order.step.name, reply.code)
            assert not few(
                np.array([n for name, n in reply.counts.items() if name in ("train", "test", "cases")]), 5
            ).any()
        scored = answered(hospital, replace(order, round=1, subset="test", threshold=0.5), "evaluate")
        assert scored.code == "ok", (order.step.name, scored.code)
        assert ("suppressed" in scored.counts) == (test < MINIMUM), order.step.name
        asked += 1
    assert asked >= 2
