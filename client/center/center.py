"""Center: one hospital's data, device, vault and policy; it describes itself, trains, sums and evaluates on request.

A center is opened anew for every message, because a client process may live for only one. Process-wide caches make
that cheap where a process lives longer; what must survive is on disk.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from client.center.answers import event_histogram, keepsakes
from client.center.config import CenterConfig, read_config
from client.center.device import set_device
from client.center.labels import labelled, told_labels
from client.center.models import backbone_of, initial_state, model_of, resident_model
from client.center.noised import noised_answer, noised_score_answer
from client.center.paired import arriving_beside, paired_answer
from client.center.patients import everyone_at, part_of, prepared
from client.center.settled import settled
from client.center.stages import KeptStages
from client.data.case import Case
from client.data.dataset import CaseSet
from client.masking.replies import check_masked, check_unmasked, sums_under_masks, under_masks
from client.methods import methods_of
from client.methods.base import Method
from client.policy import check_cases, check_order
from client.policy.orders import SUMS, TRAIN, scores_asked, sums_asked
from client.policy.policy import ceiling_of
from client.policy.start import check_start
from client.privacy.dp_sgd import charged, check_step
from client.privacy.noised.standing_in import ceilings_for, check_draws
from client.privacy.record import Chosen, Question, chosen
from client.privacy.release import Minimum, raised, released
from client.privacy.subgroups import by_subgroup
from client.privacy.sums import (
    exact_of,
    question_of_rows,
    question_of_scores,
    scores_of,
    with_fit,
)
from client.privacy.unnoised import check_strict, described, enter, scored, trained
from client.statistics.answer import told_answer
from client.training.exact import exact_rows, score_sums
from client.training.job import Job, prepare
from client.training.loop import FitLog, fit
from client.training.observation import observe
from client.vault.downlink import received
from client.vault.folds import sides
from client.vault.room import check_room
from client.vault.standing import Standing
from client.vault.vault import Vault
from common.adapters.lowrank import cut_to_own_rank, within_own_rank
from common.config.load import to_json
from common.config.options import STATISTICS
from common.config.privacy import NoisedSums, scores_are_noised
from common.config.run import PARTS, Split
from common.errors import PolicyRefusal
from common.exact.step import CELLS
from common.exact.thresholds import THRESHOLDS
from common.model.adapted import AdaptedModel
from common.privacy.masking.asked import MASK
from common.protocol.compression import form
from common.protocol.declaration import extra_form, sent_back
from common.protocol.keepsakes import KEEPSAKES, arriving_form
from common.protocol.masked import is_fit_question, masked_form, phase_form, sums_layout, training_layout
from common.protocol.messages import TOO_FEW_CASES, Order, Reply, State, Sums
from common.tasks import Task, build_task
from common.tasks.cells import Cells
from common.tasks.cuts import GRID

log = logging.getLogger("fedgraft.center")


class Center:
    """One hospital, for the length of one message.

    Args:
        members: the centers of a simulated place of several, whose patients keep their sides; absent at a hospital.
        keeps_split: False only looks: who has no place in the split yet gets none.
    """

    def __init__(self, config: CenterConfig, *, members: Sequence[Center] = (), keeps_split: bool = True):
        self.config = config
        self.code = config.code
        self._members, self._keeps_split = tuple(members), keeps_split
        self._sides: dict[str, dict[str, str]] = {}
        set_device(config)

    @classmethod
    def open(cls, path: Path | str) -> Center:
        """The center that a YAML file describes."""
        return cls(read_config(path))

    # ---------------------------------------------------------------------------------------------------- describe

    def describe(self, order: Order) -> Reply:
        """Counts of usable cases per split, and sums over the training cases' labels where the task declares some:
        what the server may know before the step starts.

        A center that has too few to train says so here; it may still be evaluated.
        """
        policy = self.config.policy
        check_order(policy, order)
        backbone_of(self.config, order)
        counts = {name: len(self.part(order, name)) for name in PARTS}
        if not order.skip_unreadable:  # then a case that cannot be used is a reason not to start
            model, _ = self.model(order)
            for name in PARTS:
                self.case_set(order, name, model)
        try:
            if order.step.rounds > 0 and counts["train"] > 0:
                check_cases(policy, len(self.part(order, "train")))
                for ceiling in ceilings_for(policy, order):
                    check_step(order, code=self.code, vault=self.vault, ceiling=ceiling)
        except PolicyRefusal as refusal:
            log.info("center=%s code=%s %s", self.code, refusal.code, refusal)
            reply, what = described(policy, order, Reply(self.code, code=refusal.code, counts=counts))
            return self.let_out(order, reply, what=what)
        picked = self._labelled(order)
        if picked.waiting:
            counts["waiting"] = picked.waiting
        sums = told_labels(order, picked.cases, code=self.code, minimum=self.minimum(order))
        reply, what = described(policy, order, Reply(self.code, counts=counts, sums=sums))
        return self.let_out(order, reply, what=what, over=counts["train"])

    def label_sums(self, order: Order) -> Sums:
        """The task's counts over the training cases' labels, as they may leave; none where the policy tells none."""
        return told_labels(order, self._labelled(order).cases, code=self.code, minimum=self.minimum(order))

    def _labelled(self, order: Order) -> Chosen:
        policy, minimum, cases = self.config.policy, self.minimum(order), self.part(order, "train")
        return labelled(order, cases, code=self.code, policy=policy, vault=self.vault, minimum=minimum)

    # ------------------------------------------------------------------------------------------------------- train

    def train(self, order: Order) -> Reply:
        """Train the step's adapter on the local training cases, starting from the order's state."""
        started = time.perf_counter()
        check_masked(order)
        job = self.prepare(order)
        reply = self.settle(job, fit(job))
        what = trained(order, reply, is_noised=job.noise is not None)
        if job.noise is None:  # how long it took says how many were drawn
            reply = replace(reply, seconds=time.perf_counter() - started)
        reply = self.let_out(order, reply, what=what, over=len(job.cases))
        if order.masking is None:
            return reply
        layout = training_layout(order, self._leaving(order))
        return under_masks(self.config, self.vault, job.order, reply, layout)

    def prepare(self, order: Order) -> Job:
        """The order as a job: its model loaded, its cases prepared, its noise charged, its methods begun. Raises
        PolicyRefusal."""
        check_order(self.config.policy, order, to=TRAIN)
        standing = Standing(self.vault, order)
        standing.check()
        self._check_room(order, standing)
        order = self._received(order)
        check_start(self.config.policy, order, self.shelf(order))
        order = replace(order, state=within_own_rank(order.state, order.step.adapter.parts, self.code))
        model, task = self.ready_model(order)
        model.train_in_round(order.round)
        chosen, methods = self.trained_on(order)
        cases = prepared(chosen, order, self.config, tokenizer=model.backbone.tokenizer)
        check_cases(self.config.policy, len(cases))
        check_draws(self.config.policy, order, cases, code=self.code)
        return prepare(
            order, model, task, cases, code=self.code, methods=methods, autocast=self.config.mixed_precision,
            another=lambda: model_of(self.config, replace(order, state={})),
            others=lambda step: self.case_set(replace(order, step=step), "train", model),
            noise=charged(order, cases, code=self.code, vault=self.vault, ceiling=ceiling_of(self.config.policy)),
            stages=KeptStages(self.config, order),
        )  # fmt: skip

    def trained_on(self, order: Order) -> tuple[list[Case], list[Method]]:
        """The training cases that the step's methods leave, and these methods."""
        cases, methods = self.part(order, "train"), methods_of(order.step, self.shelf(order))
        for method in methods:
            cases = method.cases(order, self.code, cases)
        return cases, methods

    def settle(self, job: Job, done: FitLog) -> Reply:
        """What leaves after a job."""
        return settled(job, done, config=self.config, vault=self.vault)

    def arriving(self, order: Order) -> tuple[State, State]:
        """What an order of a step may bring: a state or, as a difference, its compressed form, and extras."""
        initial = initial_state(self.config, order)
        whole = form(initial, order.step.federation.compression) if order.reference else initial
        return whole, arriving_form(initial, order.step) | arriving_beside(self, order)

    def declared(self, order: Order) -> tuple[State, State]:
        """What a reply to this order may carry: names, shapes and types of its arrays and extras."""
        if order.masking is not None:
            return {}, self._masked(order)
        leaving = self._leaving(order)
        return form(leaving, order.step.federation.compression), extra_form(leaving, order.step)

    def _masked(self, order: Order) -> State:
        """The same of a reply in a secure sum."""
        assert order.masking is not None
        if order.masking.phase != MASK:
            return phase_form(order.masking)
        is_sums = order.subset or is_fit_question(order)
        return masked_form(sums_layout(order) if is_sums else training_layout(order, self._leaving(order)))

    def _leaving(self, order: Order) -> State:
        """Tensors of the names and shapes that a training reply may carry."""
        initial = initial_state(self.config, order)
        leaving = {n: initial[n] for n in sent_back(initial, order.step, round=order.round)}
        return cut_to_own_rank(leaving, order.step.adapter.parts, self.code)

    # -------------------------------------------------------------------------------------------------------- sums

    def sums(self, order: Order) -> Reply:
        """Answer with sums over the local training cases: event times, an exact fit's, or what methods keep."""
        started = time.perf_counter()
        what = sums_asked(order)[0]
        check_order(self.config.policy, order, to="" if order.subset == STATISTICS else SUMS, asks=[what])
        check_unmasked(order)
        if order.subset == STATISTICS:
            return told_answer(self, order)
        if isinstance(order.step.privacy, NoisedSums) and order.subset not in (GRID, KEEPSAKES, THRESHOLDS):
            return sums_under_masks(self.config, self.vault, order, noised_answer(self, order))
        check_strict(self.config.policy, what)
        if order.subset == GRID:
            return event_histogram(self, order)
        if order.subset == KEEPSAKES:
            return keepsakes(self, order)
        model, _ = self.ready_model(order)
        # on this hospital's own split, before anything else is looked at
        everyone = self.case_set(order, "train", model)
        layout, minimum = model.exact_layout, self.minimum(order).cell
        cases, waiting = self.answerable(order, question_of_rows(order, layout), everyone)
        check_cases(self.config.policy, len(cases))
        if len(cases) < minimum:
            raise PolicyRefusal(TOO_FEW_CASES, f"Sums over {len(cases)} training cases are too close to the patients.")
        counts = {"cases": len(cases), "skipped": cases.skipped, **({"waiting": waiting} if waiting else {})}
        if order.subset == THRESHOLDS:
            scored = Reply(self.code, sums=score_sums(order, model, cases, minimum=minimum), counts=counts)
            scored = self.let_out(order, replace(scored, seconds=time.perf_counter() - started), what=what)
            return sums_under_masks(self.config, self.vault, order, scored)
        shared = exact_rows(order, model, cases, minimum=minimum)
        most = self.config.policy.maximum_questions
        sums = exact_of(order, layout, shared, vault=self.vault, minimum=minimum, most=most)
        told = (shared.adjusted, " outcome=untold" if shared.silent else "")
        log.info("step=%s round=%s center=%s adjusted=%s%s sums", order.step.name, order.round, self.code, *told)
        if shared.adjusted:
            counts["adjusted"] = shared.adjusted
        reply = Reply(self.code, sums=sums, counts=counts, seconds=time.perf_counter() - started)
        return sums_under_masks(self.config, self.vault, order, self.let_out(order, reply, what=what, cells=CELLS))

    # ---------------------------------------------------------------------------------------------------- evaluate

    def evaluate(self, order: Order) -> Reply:
        """Score the order's state on one local split; only sums over at least the minimum number of cases leave."""
        if order.compared is not None:
            return paired_answer(self, order)
        started = time.perf_counter()
        check_order(self.config.policy, order, asks=scores_asked(order))
        if not (is_noised := scores_are_noised(order.step.privacy)):
            check_strict(self.config.policy, scored(order))
        check_masked(order)
        standing = Standing(self.vault, order)
        standing.check()
        if order.digest:  # the state is kept, for the next one's difference to refer to
            self._check_room(order, standing)
        order = self._received(order)
        if is_noised:
            return sums_under_masks(self.config, self.vault, order, noised_score_answer(self, order))
        model, task = self.ready_model(replace(order, state=self.own_state(order)))
        minimum, sums = self.minimum(order).cell, Sums()
        cases, waiting = _scorable(self, order, self.case_set(order, order.subset, model), minimum)
        shown = len(cases.having(order.mode)) if cases is not None else 0
        counts = {"cases": shown, "skipped": cases.skipped if cases is not None else 0}
        counts |= {n: v for n, v in (("afresh", int(standing.afresh)), ("waiting", waiting)) if v}
        if cases is None or shown < minimum:
            counts["suppressed"] = 1
        else:
            sums = _scores(order, model, task, cases, vault=self.vault, minimum=minimum)
        reply = Reply(self.code, sums=sums, counts=counts, seconds=time.perf_counter() - started)
        reply = self.let_out(order, reply, what=scored(order) if sums else "counts", cells=task.cells)
        return sums_under_masks(self.config, self.vault, order, reply)

    def own_state(self, order: Order) -> State:
        """The order's state with this center's own tensors (FedBN's, Ditto's) of the round named in ``since``."""
        state = dict(order.state)
        for method in methods_of(order.step, self.shelf(order)):
            state |= method.own(order)
        return state

    # ------------------------------------------------------------------------------------- what the verbs work with

    @property
    def vault(self) -> Path:
        """This center's folder of what must survive: centers of a simulation may share a root."""
        return Path(self.config.vault) / self.code

    @cached_property
    def cases(self) -> list[Case]:
        """The center's own patients, without erased ones."""
        if self._members:
            return [case for member in self._members for case in member.cases]
        return everyone_at(self.config, self.vault)

    def part(self, order: Order, name: str) -> list[Case]:
        """The cases of one part (train, validation, test) of this center's own split that the step can use.

        Raises:
            PolicyRefusal: the order names another split.
        """
        if self._members:
            return [case for member in self._members for case in member.part(order, name)]
        return part_of(
            self.cases, self.sides(order.split, by=f"the order for step '{order.step.name}'"), order.step, name
        )

    def sides(self, split: Split, *, by: str = "a simulation") -> dict[str, str]:
        """Patient -> train, validation or test, of everyone here, as the vault keeps it.

        Args:
            by: who asks, for the vault's record, where this fixes the split.
        """
        asked = to_json(split)
        if asked not in self._sides:
            self._sides[asked] = sides(
                self.cases, split, vault=self.vault, declared=self.config.split, by=by, keep=self._keeps_split
            )
        return self._sides[asked]

    def case_set(self, order: Order, name: str, model: AdaptedModel) -> CaseSet:
        """The same, prepared."""
        return prepared(self.part(order, name), order, self.config, tokenizer=model.backbone.tokenizer)

    def model(self, order: Order) -> tuple[AdaptedModel, Task]:
        """The step's model with the order's state, a new one on this center's device, and its task."""
        return model_of(self.config, order), build_task(order.step.task, order.known)

    def ready_model(self, order: Order) -> tuple[AdaptedModel, Task]:
        return resident_model(self.config, order), build_task(order.step.task, order.known)

    def _received(self, order: Order) -> Order:
        """The order with its whole state, see `client.vault.downlink.received`."""
        if not order.digest:
            return order
        return received(order, self.shelf(order), initial=lambda: initial_state(self.config, order))

    def _check_room(self, order: Order, standing: Standing) -> None:
        if standing.latest == 0:  # many steps keep nothing on a shelf, and were begun all the same
            check_room(self.vault, self.shelf(order).path, most_gb=self.config.policy.maximum_vault_gb)

    def shelf(self, order: Order) -> Vault:
        return Vault(self.vault, order)

    def minimum(self, order: Order) -> Minimum:
        """The fewest patients that anything may be of: the hospital's own numbers; an order may raise the second."""
        policy = self.config.policy
        return Minimum(max(policy.minimum_cases, 1), raised(max(policy.minimum_cell, 1), order.minimum_cell))

    def asked_of(self, order: Order, question: Question, cases: Sequence[Case]) -> Chosen:
        """Over whom of the cases an exact question may be answered. Raises PolicyRefusal."""
        return chosen(question, cases, vault=self.vault, minimum=self.minimum(order).cell)

    def answerable(self, order: Order, question: Question, cases: CaseSet) -> tuple[CaseSet, int]:
        """The same of prepared cases that the order's mode can show, and how many wait."""
        shown = cases.having(order.mode)
        picked = self.asked_of(order, question, [cases.cases[place] for place in shown])
        if not picked.waiting:
            return cases, 0
        tokenizer = backbone_of(self.config, order).tokenizer
        return prepared(picked.cases, order, self.config, tokenizer=tokenizer), picked.waiting

    def let_out(
        self, order: Order, reply: Reply, *, what: str, cells: Sequence[Cells] = (), over: int | None = None
    ) -> Reply:
        """The reply as it leaves: the one exit of every action.

        Args:
            what: of `client.privacy.unnoised.KINDS`, for the privacy account; empty where all of it carries noise.
        """
        minimum, batch = self.minimum(order), order.step.training.batch
        found = released(reply, minimum=minimum, cells=cells, over=over, batch=batch)
        if what:
            enter(self.vault, self.config.policy, order, what)
        return found


def _scorable(center: Center, order: Order, cases: CaseSet, minimum: int) -> tuple[CaseSet | None, int]:
    """The cases that may be scored, and how many wait; None where the difference to an earlier answer is a few."""
    if len(cases.having(order.mode)) < minimum:
        return cases, 0
    try:
        return center.answerable(order, question_of_scores(order), cases)
    except PolicyRefusal as refusal:
        log.warning("center=%s code=%s nothing is scored: %s", center.code, refusal.code, refusal)
        return None, 0


def _scores(order: Order, model: AdaptedModel, task: Task, cases: CaseSet, *, vault: Path, minimum: int) -> Sums:
    """A task's scores over cases, with the summed loss, and those of its subgroups."""
    observed = observe(order, model, task, cases)
    found = [observation for observation, _ in observed]
    sums = with_fit(scores_of(task, found, order, minimum=minimum), [loss for _, loss in observed])
    rows = [cases.cases[place] for place in cases.having(order.mode)]
    return sums | by_subgroup(order, task, rows, found, vault=vault, minimum=minimum)
