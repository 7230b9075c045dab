"""Center: one hospital's data, device, vault and policy; it trains, evaluates and describes itself on request.

A center is opened anew for every message, because a client process may live for only one. Process-wide caches make
that cheap where a process lives longer; what must survive is on disk.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from client.center.config import CenterConfig, own_files, read_config
from client.center.resident import CASE_SETS, MODELS, cases_at, data_key, frozen_model
from client.data.dataset import CaseSet, targets_of, trainable, usable
from client.data.hecktor.cases import Case
from client.data.images.cache import VolumeCache
from client.data.images.transforms import augment, drawn
from client.data.splits import PARTS, split_cases
from client.methods.drift import Correction, correction_for, settle
from client.methods.personal import LOCAL, keep_own, own_tensors
from client.policy import check_cases, check_order, told
from client.training.loop import FitLog, Item, fit, optimizer_for
from client.training.prediction import features_of, predict
from client.vault.downlink import outgoing, received
from client.vault.erased import hold_back, keeps_place, read_tombstones
from client.vault.vault import Vault
from common.adapters.lowrank import cut_to_own_rank, within_own_rank
from common.backbones.base import Backbone
from common.config.load import step_to_json, to_json
from common.data.batch import VOLUMES, Batch
from common.errors import ConfigError, PolicyRefusal
from common.exact.columns import Rows
from common.exact.step import round_sums, target_of
from common.model.adapted import AdaptedModel
from common.protocol.compression import form
from common.protocol.declaration import extra_form, sent_back
from common.protocol.messages import TOO_FEW_CASES, Order, Reply, State, Sums
from common.seeding import generator_for, seed_everything, seed_for
from common.tasks import Task, build_task
from common.tasks.cuts import EVENTS, GRID, event_histogram

log = logging.getLogger("fedgraft.center")


class Center:
    """One hospital, for the length of one message."""

    def __init__(self, config: CenterConfig):
        self.config = config
        self.code = config.code
        self.cache = VolumeCache(Path(config.cache))
        _set_device(config)

    @classmethod
    def open(cls, path: Path | str) -> Center:
        """The center that a YAML file describes."""
        return cls(read_config(path))

    @property
    def vault(self) -> Path:
        """This center's folder of what must survive: centers of a simulation may share a root."""
        return Path(self.config.vault) / self.code

    @cached_property
    def everyone(self) -> list[Case]:
        """The center's own patients, and a tombstone for each erased one: what the split is dealt over."""
        return hold_back(
            cases_at(self.config.root, self.code, self.config.mapping),
            tombstones=read_tombstones(self.vault),
            modalities=self.config.modalities,
        )

    @property
    def cases(self) -> list[Case]:
        """The center's own patients."""
        return [case for case in self.everyone if not case.erased]

    def describe(self, order: Order) -> Reply:
        """Counts of usable cases per split, and sums over the training cases' labels where the task declares some:
        what the server may know before the step starts.

        A center that has too few to train says so here; it may still be evaluated.
        """
        check_order(self.config.policy, order)
        self._backbone(order)
        counts = self.split_counts(order)
        if not order.skip_unreadable:  # then a case that cannot be used is a reason not to start
            model, _ = self.model(order)
            for name in PARTS:
                self.case_set(order, name, model)
        try:
            if order.step.rounds > 0 and counts["train"] > 0:
                check_cases(self.config.policy, len(self._subset(order, "train")))
        except PolicyRefusal as refusal:
            log.info("center=%s code=%s %s", self.code, refusal.code, refusal)
            return Reply(self.code, code=refusal.code, counts=counts)
        return Reply(self.code, counts=counts, sums=self.label_sums(order))

    def label_sums(self, order: Order) -> Sums:
        """The task's counts over the training cases' labels; none of fewer cases than the minimum cell."""
        task, cases = build_task(order.step.task), self._subset(order, "train")
        if order.step.rounds == 0 or not task.label_shapes or len(cases) < self._minimum_cell(order):
            return {}
        return task.label_sums(targets_of(cases, order.step))

    def split_counts(self, order: Order) -> dict[str, int]:
        """Usable cases per split as they may be told: a count below the policy's minimum is told as the minimum."""
        return {name: told(self.config.policy, len(self._subset(order, name))) for name in PARTS}

    def train(self, order: Order) -> Reply:
        """Train the step's adapter on the local training cases, starting from the order's state."""
        started = time.perf_counter()
        check_order(self.config.policy, order)
        order, vault = self._received(order), self._vault(order)
        parts = order.step.adapter.parts
        order = replace(order, state=within_own_rank(order.state, parts, self.code))
        own = vault.load(LOCAL, since=order.since) if order.step.federation.local else {}
        model, task = self._resident_model(replace(order, state={**order.state, **own}))
        model.train_in_round(order.round)
        cases = self.case_set(order, "train", model)
        check_cases(self.config.policy, len(cases))
        correction = correction_for(order, vault)
        optimizer = optimizer_for(model, order.step, order.round)
        fitted = self.fit(order, model, task, optimizer=optimizer, correction=correction)
        state = {name: t for name, t in model.state().items() if name.partition("/")[0] in fitted.parts}
        leaving = {n: state[n] for n in sorted(sent_back(state, order.step, round=order.round))}
        extra = settle(correction, order, leaving, vault)
        keep_own(order, model, vault, fit=lambda pull: self._fit_personal(order, model, task, pull))
        sums = {"fit.loss": fitted.loss, "fit.cases": fitted.cases, "fit.batches": fitted.batches}
        log.info("step=%s round=%s center=%s loss=%.4f", order.step.name, order.round, self.code, fitted.loss)
        return Reply(
            self.code,
            state=cut_to_own_rank(outgoing(order, leaving, vault), parts, self.code),
            extra=extra,
            sums={name: np.array(value, np.float64) for name, value in sums.items()},
            counts={"cases": len(cases), "batches": fitted.batches, "skipped": cases.skipped},
            seconds=time.perf_counter() - started,
        )

    def declared(self, order: Order) -> tuple[State, State]:
        """What a training reply to this order may carry: names, shapes and types of its arrays and extras."""
        self._backbone(order)
        initial = self._resident(order)[1]
        leaving = {n: initial[n] for n in sent_back(initial, order.step, round=order.round)}
        leaving = cut_to_own_rank(leaving, order.step.adapter.parts, self.code)
        return form(leaving, order.step.federation.compression), extra_form(leaving, order.step)

    def fit(
        self,
        order: Order,
        model: AdaptedModel,
        task: Task,
        *,
        optimizer: torch.optim.Optimizer,
        correction: Correction | None = None,
    ) -> FitLog:
        """One round of the local loop; all its randomness comes from the run's seed, step, center and round."""
        seed_everything(seed_for(order.seed, order.step.name, self.code, order.round))
        return fit(
            model,
            task,
            batches=self._training_batches(order, self.case_set(order, "train", model), model),
            training=order.step.training,
            optimizer=optimizer,
            autocast=self.config.mixed_precision,
            correction=correction,
        )

    def _fit_personal(self, order: Order, model: AdaptedModel, task: Task, pull: Correction) -> None:
        self.fit(order, model, task, optimizer=optimizer_for(model, order.step, order.round), correction=pull)

    def sums(self, order: Order) -> Reply:
        """Answer with sums over the local training cases: event times for a grid, moments, Gram sums, or a Newton
        objective's loss, gradient and Hessian at the order's parameters."""
        started = time.perf_counter()
        check_order(self.config.policy, order)
        if order.subset == GRID:
            return self._event_histogram(order)
        model, _ = self._resident_model(order)
        cases = self.case_set(order, "train", model)
        check_cases(self.config.policy, len(cases))
        if len(cases) < self._minimum_cell(order):
            raise PolicyRefusal(TOO_FEW_CASES, f"Sums over {len(cases)} training cases are too close to the patients.")
        rows = self.design(order, model, cases)
        minimum = self._minimum_cell(order)
        sums = round_sums(order.step, model.linear_layout, rows, round=order.round, known=order.known, minimum=minimum)
        log.info("step=%s round=%s center=%s cases=%s sums", order.step.name, order.round, self.code, len(cases))
        counts = {"cases": len(cases), "skipped": cases.skipped}
        return Reply(self.code, sums=sums, counts=counts, seconds=time.perf_counter() - started)

    def _event_histogram(self, order: Order) -> Reply:
        """When events happened among the training cases, in coarse bins up to the task's horizon."""
        target = targets_of(self._subset(order, "train"), order.step)
        if not target:
            raise PolicyRefusal(TOO_FEW_CASES, "There is no training case to tell event times of.")
        days, event = target["days"].numpy(), target["event"].numpy()
        horizon, minimum = order.step.task.horizon_days, self._minimum_cell(order)
        return Reply(self.code, sums={EVENTS: event_histogram(days, event, horizon=horizon, minimum=minimum)})

    def design(self, order: Order, model: AdaptedModel, cases: CaseSet) -> Rows:
        """The cases as the rows of a linear part; they stay on site (or in a simulation's own process)."""
        parts = []
        for indices in cases.in_order(order.step.training.batch):
            batch, features = self._item(order, cases, indices, model)
            with torch.no_grad():
                features = model.encode(batch.inputs, batch.present) if features is None else features
                values, flags = model.design(features, batch.inputs, batch.present)
            target = target_of(order.step, {name: tensor.cpu() for name, tensor in batch.target.items()})
            parts.append((values.cpu().numpy(), flags.cpu().numpy(), target))
        return Rows(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))

    def evaluate(self, order: Order) -> Reply:
        """Score the order's state on one local split; only sums over at least the minimum number of cases leave."""
        started = time.perf_counter()
        check_order(self.config.policy, order)
        order = self._received(order)
        model, task = self._resident_model(replace(order, state=self.own_state(order)))
        cases = self.case_set(order, order.subset, model)
        shown = len(cases.having(order.mode))
        counts = {"cases": shown, "skipped": cases.skipped}
        if shown < self._minimum_cell(order):
            counts["cases"] = told(self.config.policy, shown)
            return Reply(self.code, counts={**counts, "suppressed": 1}, seconds=time.perf_counter() - started)
        observations = self.observe(order, model, task, cases)
        sums: Sums = dict(task.sums([o for o, _ in observations]))
        sums["fit.loss"] = np.array(sum(loss for _, loss in observations), np.float64)
        sums["fit.cases"] = np.array(shown, np.float64)
        if order.wants_curves:
            sums.update(task.curve_sums([o for o, _ in observations], order.threshold or 0.0))
        return Reply(self.code, sums=sums, counts=counts, seconds=time.perf_counter() - started)

    def own_state(self, order: Order) -> State:
        """The order's state with this center's own tensors (FedBN's, Ditto's) of the round named in ``since``."""
        return {**order.state, **own_tensors(order, self._vault(order))}

    def observe(self, order: Order, model: AdaptedModel, task: Task, cases: CaseSet) -> list[tuple[dict, float]]:
        """Per-case observations and losses of the cases that the order's mode can show (`CaseSet.having`), in order.

        They stay on site (or in a simulation's own process).
        """
        found = []
        for indices in cases.in_order(order.step.training.batch, only=cases.having(order.mode)):
            batch, features = self._item(order, cases, indices, model)
            with torch.no_grad():
                output = predict(model, batch, features=features, window=order.step.view.window)
                for row, observation in enumerate(task.observe(output, batch)):
                    found.append((observation, float(task.loss(output[row : row + 1], _row(batch, row)))))
        return found

    def model(self, order: Order) -> tuple[AdaptedModel, Task]:
        """The step's model with the order's state, on this center's device, and its task."""
        model = AdaptedModel(self._backbone(order), order.step, seed=order.seed)
        if order.state:
            model.load(order.state)
        return model.to(self.config.device).eval(), build_task(order.step.task, order.known)

    def _resident_model(self, order: Order) -> tuple[AdaptedModel, Task]:
        """`model` for the length of one message: built once a step and process, then only its state is exchanged."""
        self._backbone(order)
        model, _ = self._resident(order)
        model.load(order.state)
        return model.eval(), build_task(order.step.task, order.known)

    def _resident(self, order: Order) -> tuple[AdaptedModel, State]:
        """The step's model and the state that the seed gave it."""
        key = (to_json(order.backbone), step_to_json(order.step), order.seed, self.config.device)
        if key not in MODELS:
            MODELS.clear()
            model, _ = self.model(replace(order, state={}))
            MODELS[key] = (model, model.state())
        return MODELS[key]

    # ------------------------------------------------------------------------------------- what stays, what is kept

    def _vault(self, order: Order) -> Vault:
        return Vault(self.vault, order)

    def _received(self, order: Order) -> Order:
        """The order with its whole state, see `client.vault.downlink.received`."""
        if not order.digest:
            return order
        self._backbone(order)
        return received(order, self._vault(order), initial=lambda: self._resident(order)[1])

    def _minimum_cell(self, order: Order) -> int:
        return max(order.minimum_cell, self.config.policy.minimum_cell, 1)

    def _backbone(self, order: Order) -> Backbone:
        spec = own_files(self.config, order.backbone)
        backbone, digest = frozen_model(to_json(spec), self.config.device)
        if digest != order.base:
            raise PolicyRefusal(
                "declined.base_mismatch",
                f"This center's frozen model is {digest[:12]}, the server's is {order.base[:12]}: "
                "install the same weights on both sides.",
            )
        return backbone

    def _subset(self, order: Order, name: str) -> list[Case]:
        wanted = [c for c in self.everyone if (keeps_place(c, order.step) if c.erased else usable(c, order.step))]
        part = [case for case in split_cases(wanted, split=order.split)[name] if not case.erased]
        return part if name == "test" else [case for case in part if trainable(case, order.step)]

    def case_set(self, order: Order, name: str, model: AdaptedModel) -> CaseSet:
        """The prepared cases of one split, kept in this process."""
        cases = self._subset(order, name)
        patients = tuple(case.patient for case in cases)
        key = (self.config.root, self.config.cache, order.base, order.skip_unreadable, data_key(order.step), patients)
        if key not in CASE_SETS:
            CASE_SETS[key] = CaseSet(
                cases,
                order.step,
                tokenizer=model.backbone.tokenizer,
                cache=self.cache,
                skip_unreadable=order.skip_unreadable,
            )
        return CASE_SETS[key]

    def _training_batches(self, order: Order, cases: CaseSet, model: AdaptedModel) -> Iterator[Item]:
        step = order.step
        for epoch in range(step.training.epochs):
            generator = generator_for(order.seed, step.name, self.code, order.round, epoch)
            for indices in cases.shuffled(step.training.batch, generator=generator):
                if not (step.training.augment or step.training.draw) and step.view.size == step.view.window:
                    yield self._item(order, cases, indices, model)
                    continue
                batch = cases.collate(indices, generator=generator)
                batch = drawn(batch, step.training.draw, generator=generator)
                if step.training.augment:
                    batch = augment(batch, generator=generator)
                yield batch.to(self.config.device), None

    def _item(self, order: Order, cases: CaseSet, indices: list[int], model: AdaptedModel) -> Item:
        """A batch with its frozen features where they can be computed once and kept."""
        batch = cases.collate(indices).to(self.config.device)
        batch = batch.in_mode(order.mode) if order.mode else batch
        whole = all(list(x.shape[2:]) == order.step.view.window for m, x in batch.inputs.items() if m in VOLUMES)
        if not (model.encoder_is_frozen and whole):
            return batch, None
        kept = cases.kept_features(f"{order.base}|{order.mode}|{model.encoder_key()}")
        return batch, features_of(model, batch, kept=kept, indices=indices)


def _row(batch: Batch, row: int) -> Batch:
    pick = slice(row, row + 1)
    return Batch(*({k: v[pick] for k, v in d.items()} for d in (batch.inputs, batch.present, batch.target)))


def _set_device(config: CenterConfig) -> None:
    torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(config.deterministic and config.device == "cpu")
    if config.device != "cuda":
        return
    if not torch.cuda.is_available():
        raise ConfigError(
            "This center is set to device 'cuda', but no CUDA GPU is visible; set device: cpu (runtime=laptop)."
        )
    if config.gpu_memory_gb is not None:
        whole = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, config.gpu_memory_gb * 1e9 / whole))
