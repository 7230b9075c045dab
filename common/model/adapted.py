"""AdaptedModel: one frozen backbone, a step's adapter parts and its task's head, with one forward.

The backbone is shared by every model of a process. A model works on a *twin* of it: its own modules around the same
frozen tensors, so that LoRA can be injected without anyone else noticing and without a second copy in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from common.adapters.compatibility import misfits, reached
from common.adapters.lowrank import trained_tensors
from common.backbones.base import Backbone, Features, tensors_digest
from common.config.adapter import INSIDE, role_of
from common.config.limits.patterns import matches, matches_any
from common.config.step import Step
from common.data.batch import CT, volumes_of
from common.errors import AdapterError
from common.exact.columns import Layout
from common.model.building import build_parts, exact_layout, inject
from common.model.encoding import Encoding, encoding_of
from common.model.readout import LinearReadout, VoxelLinearReadout, VoxelReadout, readout_of
from common.model.state import check_fits, names_by_part, tensors_of
from common.model.twin import frozen_twin
from common.protocol.messages import State
from common.tasks import build_task


class AdaptedModel(nn.Module):
    """The model of one step.

    Args:
        backbone: frozen and shared; put it on its device first, the parts follow it there.
        step: its task, modalities, adapter parts and ``train_parts``. Modalities that a batch holds beyond the step's
            are not looked at.
        seed: the run's. Each part starts from its own (seed, part name), so that the server and every center start
            alike and one part more does not change another's start.

    Raises:
        AdapterError, UnknownName: when the parts do not fit the backbone, the task or each other.
    """

    def __init__(self, backbone: Backbone, step: Step, *, seed: int):
        super().__init__()
        self.step = step
        self.task = build_task(step.task)
        self.modalities = tuple(step.modalities)
        self.specs = {name: step.adapter.parts[name] for name in sorted(step.adapter.parts)}
        _check_parts(step)
        self._live: dict[str, Tensor] | None = None
        self.backbone = frozen_twin(backbone)
        self._injected = inject(self.backbone, backbone, step, seed=seed)
        self.backbone.eval()  # what was injected too; from here on `train` switches the parts alone
        self.parts = build_parts(backbone, step, self.task, seed=seed).to(self.device)
        modules = dict(self.parts)
        self._encoding = encoding_of(step, modules)
        self._readout = readout_of(step, self.task, self.backbone, modules)
        self._train_only(step.train_parts)
        self.eval()

    # ---------------------------------------------------------------------------------------------------- forward

    def forward(self, inputs: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
        """The task's output for a batch: segmentation (B, 1 + S, D, H, W), prognosis (B, K), classification (B, C).

        Args:
            inputs, present: as in `Batch`; any subset of the step's modalities may be present per case.
        """
        return self.decode(self.encode(inputs, present), inputs, present)

    def encode(self, inputs: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Features:
        """The (adapted) backbone's features. They depend on the inputs alone where `encoder_is_frozen`."""
        if not self._readout.reads_features:
            return Features([], {})
        return self._encoding.encode(self.backbone, *self._seen(inputs, present))

    def decode(self, features: Features, inputs: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
        """The output from features and, for skips, the volumes."""
        return self._readout.read(features, *self._seen(inputs, present))

    def deeper_answers(self) -> list[Tensor]:
        """Logits (B, 1 + S, d, h, w) of a decoder's coarser levels to the last training batch, the finest first; none
        without deep supervision."""
        return self._readout.deeper if isinstance(self._readout, VoxelReadout) else []

    def columns(
        self, features: Features, inputs: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Values (B, F) and known flags (B, V), float64, of a linear part, in the order of `exact_layout`."""
        if not isinstance(self._readout, LinearReadout):
            raise AdapterError(f"Step '{self.step.name}' has no linear part, so it has no columns.")
        return self._readout.columns(features, *self._seen(inputs, present))

    def maps(
        self, features: Features, inputs: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The columns of a linear part for voxels as maps, and which cases have each modality, bool (B,)."""
        if not isinstance(self._readout, VoxelLinearReadout):
            raise AdapterError(f"Step '{self.step.name}' has no linear part for voxels, so it has no maps.")
        seen, there = self._seen(inputs, present)
        return self._readout.maps(features, seen, there), [there[m] for m in self._readout.linear.columns.modalities]

    @property
    def exact_layout(self) -> Layout:
        """The columns of the step's part that is fitted from sums."""
        return exact_layout(self.backbone, self.step)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.backbone.parameters()).device

    @property
    def encoder_is_frozen(self) -> bool:
        """Whether training leaves `encode` as it is, so that its features may be computed once and kept; every
        modality's apart, up to full resolution, are too large to keep, and masks are drawn anew each time."""
        return not self._inside() & self._trained and isinstance(self._encoding, Encoding)

    def encoder_key(self) -> str:
        """What, beside the base and the inputs, decides what `encode` says: the modalities that it looks at and a
        digest of the tensors inside the encoder. Features kept under another key are not this model's."""
        inside = self._inside()
        live = self._tensors() if inside else {}  # asked for with every batch
        tensors = {name: t for name, t in live.items() if name.partition("/")[0] in inside}
        return f"{'+'.join(sorted(self.modalities))}|{self.task.zero_shot}|{tensors_digest(tensors)}"

    def _inside(self) -> set[str]:
        """Parts that work inside the encoder."""
        return {name for name, spec in self.specs.items() if role_of(spec) in INSIDE}

    def _seen(
        self, inputs: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What this step may look at; with a CT, be it an absent one, wherever there is a volume."""
        names = [m for m in self.modalities if m in inputs and m in present]
        if not names:
            raise AdapterError(
                f"A batch holds {', '.join(sorted(inputs)) or 'nothing'}, but step '{self.step.name}' looks at "
                f"{', '.join(self.modalities)}."
            )
        seen, there = {m: inputs[m] for m in names}, {m: present[m] for m in names}
        if CT not in seen and (volumes := volumes_of(seen)):  # the same as a CT that is absent in every case
            seen[CT], there[CT] = torch.zeros_like(seen[volumes[0]]), torch.zeros_like(there[volumes[0]])
        return seen, there

    # ------------------------------------------------------------------------------------------------------ state

    @property
    def part_names(self) -> list[str]:
        """Names of the parts that have tensors, sorted; ``head`` is the task's."""
        return sorted({*self._injected, *self.parts})

    @property
    def trained_parts(self) -> set[str]:
        """Parts that the step's ``train_parts`` lets move."""
        return set(self._trained)

    def reached_parts(self, present: Mapping[str, Tensor]) -> set[str]:
        """Parts that take part in the output of at least one of a batch's cases: the only ones it may train."""
        names = [m for m in self.modalities if m in present]
        patterns = {tuple(row) for row in torch.stack([present[m] for m in names], dim=1).tolist()} if names else set()
        cases = [{name for name, has in zip(names, pattern, strict=True) if has} for pattern in patterns]
        found: set[str] = set().union(*(reached(self.specs, shown) for shown in cases))
        return found & set(self.part_names)

    def state(self) -> State:
        """Everything that travels: ``<part>/<path>`` -> tensor on the CPU, detached copies, never the backbone's."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self._tensors().items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over a state of the same parts. Raises AdapterError with everything that does not fit; then nothing
        is changed."""
        own = self._tensors()
        check_fits(own, state)
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(state[name])

    def trainable_parameters(self) -> list[nn.Parameter]:
        """What an optimiser may change, in the order of names, the same at every center."""
        return list(self.named_trainable_parameters().values())

    def named_trainable_parameters(self) -> dict[str, nn.Parameter]:
        """State name -> parameter, for penalties that compare with another state."""
        return {n: t for n, t in self._tensors().items() if isinstance(t, nn.Parameter) and t.requires_grad}

    def named_tensors(self) -> dict[str, Tensor]:
        """State name -> live tensor, whether it trains or not."""
        return dict(self._tensors())

    def parameter_counts(self) -> dict[str, int]:
        """Part -> number of parameters, trained or not; the backbone's are not among them."""
        tensors = self._tensors()
        return {part: sum(tensors[n].numel() for n in names) for part, names in names_by_part(tensors).items()}

    def train(self, mode: bool = True) -> AdaptedModel:
        """Training mode for the trained parts only: the backbone and parts at rest never drop anything out."""
        self.training = mode
        for name in self.part_names:  # the twin stays in evaluation mode
            part = self._injected[name] if name in self._injected else self.parts[name]
            part.train(mode and name in self._trained)
        return self

    def _tensors(self) -> dict[str, Tensor]:
        """Live tensors by state name, sorted; looked up once, since loading changes values and not tensors."""
        if self._live is None:
            tensors: dict[str, Tensor] = {}
            for name in self.part_names:
                inside = self._injected[name].tensors() if name in self._injected else tensors_of(self.parts[name])
                tensors |= {f"{name}/{path}": tensor for path, tensor in inside.items()}
            self._live = dict(sorted(tensors.items()))
        return self._live

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> AdaptedModel:
        """Where `to` passes through: another device means other buffers."""
        self._live = None
        return super()._apply(fn, recurse)

    def _train_only(self, patterns: Iterable[str]) -> None:
        names, patterns = self.part_names, list(patterns)
        idle = [p for p in patterns if p != "*" and not any(matches(name, p) for name in names)]
        if idle:
            raise AdapterError(
                f"train_parts names {', '.join(map(repr, idle))}, which match no part; parts: {', '.join(names)}."
            )
        self._trained = {name for name in names if matches_any(name, patterns)}
        self.train_in_round(None)

    def train_in_round(self, round: int | None) -> None:
        """Give gradients to what this round trains: a LoRA rule may freeze factors for good or by turns.

        Args:
            round: from 1; None: whatever any round trains. `trained_tensors` in `common.adapters.lowrank` decides.
        """
        tensors = self._tensors()
        changing = trained_tensors(tensors, self.specs, round=round)
        for name, tensor in tensors.items():
            if isinstance(tensor, nn.Parameter):
                tensor.requires_grad_(name in changing and name.partition("/")[0] in self._trained)


def _check_parts(step: Step) -> None:
    """Which parts a step may combine; everything wrong at once."""
    wrong = misfits(step)
    if wrong:
        said = "; ".join(sentence.rstrip(".") for sentence in wrong)
        raise AdapterError(f"The adapter of step '{step.name}' does not hold together: {said}.")
