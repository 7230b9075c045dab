"""DP-SGD at a center: the bound of one patient, the noise, public numbers alone, and the same loop as without."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.losses import DiceCELoss
from opacus import GradSampleModule
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from client.center.center import Center
from client.privacy import dp_sgd
from client.privacy.dp_sgd import DpSgd, Draw, by_patient, clipped
from client.privacy.spending import read_account
from client.privacy.streams import Stream, known_secret
from client.training.job import prepare
from client.training.loop import fit, learn
from common.backbones import backbone_digest, load_backbone
from common.config.methods.drift import ScaffoldMethod
from common.config.privacy import DpSgd as Spec
from common.data.batch import Batch
from common.errors import PolicyRefusal
from common.model.adapted import AdaptedModel
from common.privacy import plan
from common.privacy.accounting import Release
from common.privacy.plan import Plan, plan_of
from common.protocol.messages import Order
from tests.helpers.small import forget, small_run, write_centers, write_cohort

SPEC = Spec(epsilon=8.0, cohort=10, batch=5, draws=2)


def order_of(privacy=SPEC, *, round=1, **training):
    """An order of the small segmentation step, on frozen features without dropout, its state the seed's."""
    forget()
    run = small_run(steps=["tumour_ct"])
    step = run.steps["tumour_ct"]
    step.privacy = privacy
    for name, value in training.items():
        setattr(step.training, name, value)
    backbone = load_backbone(run.backbone)
    state = AdaptedModel(backbone, step, seed=1).state()
    return Order(step, 1, round, run.backbone, backbone_digest(backbone), run.data.split, state=state, run="ab12")


def noise_of(plan, seed=0):
    return DpSgd(plan, *(Stream(known_secret(3 * seed + number)) for number in range(3)))


def everyone(batch, *, draws=1, clip=1e9, noise=0.0):
    """A plan that takes every patient in each draw."""
    return Plan(cohort=batch, batch=batch, draws=draws, clip=clip, delta=0.01, noise=noise)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A center of 14 patients."""
    root = write_cohort(tmp_path_factory.mktemp("cohort"), {"MDA": 14})
    return write_centers(tmp_path_factory.mktemp("centers"), root, ["MDA"])["MDA"]


@pytest.fixture
def at_center(file, tmp_path):
    """The center with a vault of its own."""
    center = Center.open(file)
    center.config = replace(center.config, vault=str(tmp_path / "vault"))
    return center


def job_of(center, order, noise=None, **options):
    model, task = center.model(order)
    model.train_in_round(order.round)
    cases = center.case_set(order, "train", model)
    return prepare(order, model, task, cases, code=center.code, noise=noise, **options)


# ------------------------------------------------------------------------------------------------- one patient's bound


def test_a_patient_is_bounded_over_all_tensors_together():
    gradient = {"a": torch.full((1000,), 3.0, dtype=torch.float64), "b": torch.full((7,), -5.0, dtype=torch.float64)}
    found = clipped(gradient, 0.5)
    norm = math.sqrt(sum(float(part.square().sum()) for part in found.values()))
    assert norm == pytest.approx(0.5, rel=1e-12)
    assert torch.equal(found["a"] / found["a"][0], gradient["a"] / gradient["a"][0])
    assert float(found["b"][0] / found["a"][0]) == pytest.approx(-5 / 3)


def test_a_short_gradient_stays_to_the_bit_and_one_without_a_length_counts_as_none():
    short = {"a": torch.tensor([0.3, -0.4], dtype=torch.float64)}
    assert torch.equal(clipped(short, 0.5)["a"], short["a"])
    for broken in (math.nan, math.inf, -math.inf):
        assert clipped({"a": torch.tensor([broken, 1.0], dtype=torch.float64)}, 1.0)["a"].tolist() == [0.0, 0.0]


def test_crops_of_one_patient_are_added_before_they_are_clipped(at_center):
    order = order_of()
    job = job_of(at_center, order)
    items = [job.batches.cases.collate([place]) for place in (0, 1)]
    together = noise_of(everyone(1, clip=1e-3))
    together.learn(job, Draw([[(item, None) for item in items]]), learn)
    norm = sum(float(p.grad.double().square().sum()) for p in job.model.trainable_parameters()) ** 0.5
    assert norm == pytest.approx(1e-3, rel=1e-5)  # as one patient; as two it would be up to twice that
    together.learn(job, Draw([[(item, None)] for item in items]), learn)
    norm = sum(float(p.grad.double().square().sum()) for p in job.model.trainable_parameters()) ** 0.5
    assert 1.2e-3 < norm <= 2e-3 * (1 + 1e-6)


def test_two_cases_of_a_patient_are_one_patient():
    cases = [type("Case", (), {"patient": name})() for name in ("a", "b", "a")]
    assert by_patient(type("Cases", (), {"cases": cases})()) == [[0, 2], [1]]


# ----------------------------------------------------------------------------------------------- the same gradients


def test_a_patients_gradient_is_the_same_by_the_loop_by_vmap_and_by_opacus(at_center):
    order = order_of()
    job = job_of(at_center, order)
    model, task, batch = job.model, job.task, job.cases.collate([0, 1, 2])
    own = [dp_sgd._gradient_of(job, [(_row(batch, row), None)], learn, model.named_trainable_parameters())
           for row in range(3)]  # fmt: skip

    wrapped = _Answers(model)
    parameters = {name: p for name, p in wrapped.named_parameters() if p.requires_grad}

    soft = DiceCELoss(softmax=True, include_background=False)  # the task's own, of a mask that is one-hot already

    def loss_of(values, image, hot):
        return soft(functional_call(wrapped, values, (image[None],)).float(), hot[None])

    hot = torch.nn.functional.one_hot(batch.target["mask"][:, 0].long(), task.outputs).movedim(-1, 1).float()
    detached = {name: p.detach() for name, p in parameters.items()}
    with sdpa_kernel(SDPBackend.MATH):  # the only one that vmap knows
        by_vmap = vmap(grad(loss_of), in_dims=(None, 0, 0))(detached, batch.inputs["CT"], hot)
    names = {id(p): name for name, p in parameters.items()}
    for name, parameter in model.named_trainable_parameters().items():
        for row in range(3):
            theirs = by_vmap[names[id(parameter)]][row].double()
            assert torch.allclose(own[row][name], theirs, rtol=1e-4, atol=1e-7), name

    observed = GradSampleModule(_Answers(model).train(), batch_first=True, loss_reduction="sum")
    output = observed(batch.inputs["CT"].clone().requires_grad_())
    torch.stack([task.loss(output[row : row + 1], _row(batch, row)) for row in range(3)]).sum().backward()
    for name, parameter in model.named_trainable_parameters().items():
        for row in range(3):
            assert torch.allclose(own[row][name], parameter.grad_sample[row].double(), rtol=1e-4, atol=1e-7), name


class _Answers(torch.nn.Module):
    """The model's answer to a volume of CT alone."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, image):
        return self.model({"CT": image}, {"CT": torch.ones(len(image), dtype=torch.bool)})


def _row(batch, row):
    pick = slice(row, row + 1)
    return Batch(*({k: v[pick] for k, v in d.items()} for d in (batch.inputs, batch.present, batch.target)))


# ------------------------------------------------------------------------------------------------------------ the noise


def test_the_noise_has_the_plans_variance_and_no_mean(at_center):
    job = job_of(at_center, order_of())
    noise = noise_of(Plan(cohort=100, batch=4, draws=1, clip=0.5, delta=1e-3, noise=3.0))
    drawn = []
    while sum(map(len, drawn)) < 40_000:
        noise.learn(job, Draw([]), learn)
        drawn.append(torch.cat([p.grad.flatten() for p in job.model.trainable_parameters()]).numpy())
    found = np.concatenate(drawn)
    assert np.std(found) == pytest.approx(3.0 * 0.5 / 4, rel=0.02)
    assert abs(np.mean(found)) < 4 * 3.0 * 0.5 / 4 / math.sqrt(len(found))


def test_noise_lies_on_top_of_the_clipped_sum_over_the_public_number(at_center):
    job = job_of(at_center, order_of())
    items = [[(job.cases.collate([place]), None)] for place in range(3)]
    bare, noised = everyone(7, clip=0.1), everyone(7, clip=0.1, noise=2.0)
    noise_of(bare).learn(job, Draw(items), learn)
    signal = [p.grad.clone() for p in job.model.trainable_parameters()]
    noise_of(noised).learn(job, Draw(items), learn)
    alike = noise_of(noised)
    alike.learn(job, Draw([]), learn)  # the same noise, nobody drawn
    pure = [p.grad.clone() for p in job.model.trainable_parameters()]
    noise_of(noised).learn(job, Draw(items), learn)
    for parameter, part, alone in zip(job.model.trainable_parameters(), signal, pure, strict=True):
        assert torch.allclose(parameter.grad, part + alone, atol=1e-7)


def test_a_draw_of_nobody_is_a_step_of_noise_and_counts(at_center):
    order = order_of()
    nobody = Plan(cohort=10**9, batch=1, draws=3, clip=1.0, delta=1e-10, noise=1.0)
    job = job_of(at_center, order, noise_of(nobody))
    done = fit(job)
    assert (done.batches, done.cases, done.loss) == (3, 0, 0.0)
    assert done.parts == job.model.trained_parts
    moved = [not torch.equal(order.state[n], t) for n, t in job.model.state().items() if n.endswith("weight")]
    assert moved and all(moved)


# ------------------------------------------------------------------------------------------------------ public numbers


def test_neighbouring_cohorts_are_scaled_and_told_the_same_to_the_bit(at_center, monkeypatch):
    """Opacus' loader gives 17 and 18 patients the normalisers 5 and 6, 55 and 56 the normalisers 7 and 8."""
    order = order_of()
    cases = at_center.part(order, "train")
    told = []
    for removed in (0, 1):
        monkeypatch.setattr(at_center, "part", lambda order, name, removed=removed: cases[removed:])
        job = at_center.prepare(order)
        assert len(job.cases) == len(cases) - removed
        told.append((job.noise.plan, job.noise.plan.rate, job.noise.counts, len(list(job.batches))))
    assert told[0] == told[1]


def test_one_patient_more_adds_the_own_clipped_gradient_and_changes_nothing_else(at_center):
    job = job_of(at_center, order_of())
    items = [[(job.cases.collate([place]), None)] for place in range(4)]

    def gradient(patients):
        noise_of(everyone(9, clip=0.2)).learn(job, Draw(patients), learn)
        return torch.cat([p.grad.double().flatten() for p in job.model.trainable_parameters()])

    more = gradient(items) - gradient(items[:3])
    assert torch.allclose(more, gradient(items[3:]), atol=1e-8)
    assert float(more.norm()) <= 0.2 / 9 * (1 + 1e-6)


def test_a_center_of_its_own_bound_has_a_plan_of_its_own(monkeypatch):
    asked = []
    monkeypatch.setattr(plan, "noise_for", lambda *target, **schedule: asked.append((*target, schedule)) or 1.5)
    step = order_of(Spec(epsilon=3.0, cohort=72, cohorts={"CHUM": 18}, batch=8)).step
    large, small = plan_of(step, "MDA"), plan_of(step, "CHUM")
    assert (large.cohort, large.draws, large.delta) == (72, 9, 1 / 720)
    assert (small.cohort, small.draws, small.delta) == (18, 3, 1 / 180)
    assert large.release == Release(1.5, 8 / 72, 9) and small.release == Release(1.5, 8 / 18, 3)
    assert asked == [
        (3.0, 1 / 720, {"rate": 8 / 72, "draws": step.rounds * 9, "found_before": None}),
        (3.0, 1 / 180, {"rate": 8 / 18, "draws": step.rounds * 3, "found_before": None}),
    ]


# ------------------------------------------------------------------------------------------------------ the same loop


def test_a_seeded_run_and_its_private_twin_share_everything_but_the_noise(at_center):
    """Everybody in each draw, a clip that bounds nobody and no noise: the plain loop over whole batches."""
    order = order_of(batch=16, epochs=3, clip_norm=0.0)
    plain = job_of(at_center, replace(order, step=replace(order.step, privacy=None)))
    private = job_of(at_center, order, noise_of(everyone(len(plain.cases), draws=3)))
    for job in (plain, private):  # AdamW would make whole steps of differences in the last bit
        fit(replace(job, optimizer=torch.optim.SGD(job.model.trainable_parameters(), lr=0.1)))
    mine, other = plain.model.state(), private.model.state()
    assert mine.keys() == other.keys()
    assert all(torch.allclose(mine[n], other[n], rtol=1e-3, atol=1e-5) for n in mine)
    moved = max(float((mine[n] - order.state[n]).abs().max()) for n in mine)
    apart = max(float((mine[n] - other[n]).abs().max()) for n in mine)
    assert apart < 0.01 * moved


def test_penalties_are_added_after_the_noise_and_control_variates_are_made_of_it(at_center):
    from client.methods import methods_of
    from client.vault.vault import Vault

    order = order_of()
    order.step.methods = [ScaffoldMethod()]
    methods = methods_of(order.step, Vault(at_center.vault, order))
    nobody = Plan(cohort=10**9, batch=1, draws=2, clip=1.0, delta=1e-10, noise=1.0)
    job = job_of(at_center, order, noise_of(nobody), methods=methods)
    fit(job)
    recorded = torch.cat([t.flatten() for t in methods[0].mean_gradients().values()])
    assert float(recorded.std()) == pytest.approx(1.0 / math.sqrt(2), rel=0.1)  # two steps of pure noise, averaged


# ---------------------------------------------------------------------------------------------------- a center answers


def test_the_same_question_repeats_its_answer_and_is_free(at_center):
    order = order_of()
    first, again = at_center.train(order), at_center.train(order)
    assert all(torch.equal(tensor, again.state[name]) for name, tensor in first.state.items())
    assert len(read_account(at_center.vault).charges) == 1
    other = at_center.train(order_of(round=2))
    assert any(not torch.equal(tensor, other.state[name]) for name, tensor in first.state.items())
    assert [entry.round for entry in read_account(at_center.vault).charges] == [1, 2]


def test_another_patient_in_the_cohort_is_another_question(at_center, monkeypatch):
    order = order_of()
    at_center.train(order)
    cases = at_center.part(order, "train")
    monkeypatch.setattr(at_center, "part", lambda order, name: cases[1:])
    at_center.train(order)
    assert len({entry.digest for entry in read_account(at_center.vault).charges}) == 2


def test_what_leaves_beside_the_noised_state_is_public(at_center):
    order = order_of()
    reply = at_center.train(order)
    assert reply.sums == {} and reply.seconds == 0.0
    assert reply.counts == {"cases": 10, "batches": 2}
    assert {name.partition("/")[0] for name in reply.state} == {name.partition("/")[0] for name in order.state}


def test_it_is_on_the_account_before_anything_is_drawn(at_center, monkeypatch):
    drawn = []
    monkeypatch.setattr(dp_sgd, "Stream", lambda key: drawn.append(key) or Stream(key))

    def refused(vault, entry, ceiling, *, most):
        assert not drawn
        raise PolicyRefusal("declined.budget", "nothing is left")

    monkeypatch.setattr(dp_sgd, "charge", refused)
    with pytest.raises(PolicyRefusal):
        at_center.train(order_of())
    assert drawn == []


def test_a_seed_for_the_noise_is_on_the_account_for_good(at_center):
    order = order_of(replace(SPEC, noise_seed=3))
    one = at_center.train(order)
    assert not read_account(at_center.vault).is_private
    assert read_account(at_center.vault).releases == (plan_of(order.step, at_center.code).release,)
    assert one.code == "ok"
