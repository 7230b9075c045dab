"""AdaptedModel: one frozen backbone, a step's adapter parts and its task's head, with one forward.

The backbone is shared by every model of a process. A model works on a *twin* of it: its own modules around the same
frozen tensors, so that LoRA can be injected without anyone else noticing and without a second copy in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from common.adapters import INJECTED, Surroundings, build_part
from common.adapters.compatibility import HEAD, IMAGE, SOURCES, feeds, misfits, reached
from common.adapters.lowrank import trained_tensors
from common.backbones.base import BESIDE, Backbone, Features, Join, tensors_digest
from common.config.adapter import role_of
from common.config.step import Step
from common.data.batch import CT, RECORD, volumes_of
from common.errors import AdapterError
from common.exact.columns import Layout
from common.exact.step import layout_of, records_of
from common.model.state import check_fits, names_by_part, tensors_of
from common.model.twin import frozen_twin
from common.protocol.messages import State
from common.seeding import seed_for
from common.tasks import build_task

ENCODING = ("full", "join", "lora", "patch_embed", "resolution", "stand_in")  # kinds that work inside the encoder


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
        self._injected = self._inject(backbone, seed)
        self.backbone.eval()  # what was injected too; from here on `train` switches the parts alone
        self.parts = nn.ModuleDict()
        self._build_parts(backbone, seed)
        device = next(backbone.parameters()).device
        self.parts.to(device)
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
        if self.task.zero_shot:
            return Features([], {})  # the backbone compares image and prompts by itself, in `decode`
        inputs, present = self._seen(inputs, present)
        inputs, present = ({m: x for m, x in given.items() if m != RECORD} for given in (inputs, present))
        if not inputs:
            return Features([], {})  # a record alone has nothing to encode
        stems = {spec.modality: self._part(name) for name, spec in self._of_kind("patch_embed")}
        position = None
        for name, _ in self._of_kind("resolution"):
            stems[CT], position = self._part(name), self._part(name).position
        return self.backbone(inputs, present, stems, join=self._join(), position=position)

    def decode(self, features: Features, inputs: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
        """The output from features and, for skips, the volumes."""
        inputs, present = self._seen(inputs, present)
        if self.task.zero_shot:
            return self.backbone.zero_shot(inputs, self.task.classes)  # type: ignore[operator, attr-defined]
        if self._of_kind("decoder"):
            return self._segment(features, inputs, present)
        for name, _ in self._of_kind("linear"):
            return self._part(name)(*self.design(features, inputs, present))
        embeddings, there = self._embeddings(features, inputs, present)
        for name, _ in self._of_kind("fusion"):
            tokens = features.pyramid[-1].flatten(2).transpose(1, 2) if features.pyramid else None
            imaged = _any_present(present, IMAGE, like=embeddings[0])
            return self._part(HEAD)(self._part(name)(embeddings, there, tokens, imaged))
        return self._part(HEAD)(torch.cat(embeddings, dim=1))

    def design(
        self, features: Features, inputs: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Values (B, F) and known flags (B, V), float64, of a linear part, in the order of `linear_layout`."""
        inputs, present = self._seen(inputs, present)
        some = next(iter(inputs.values()))
        values = [e.double() for e in self._embeddings(features, inputs, present)[0]]
        flags = [_any_present(present, s, like=some)[:, None].double() for s, _ in self._sources()]
        if RECORD in inputs:
            width = len(records_of(self.step).values)
            values, flags = [*values, inputs[RECORD][:, :width]], [*flags, inputs[RECORD][:, width:]]
        return torch.cat(values, dim=1), torch.cat(flags, dim=1)

    @property
    def linear_layout(self) -> Layout:
        """The columns of the step's linear part."""
        widths = {source: _width(self.backbone, source) for source, _ in self._sources()}
        return layout_of(self.step, widths, with_records=RECORD in self.modalities)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.backbone.parameters()).device

    @property
    def encoder_is_frozen(self) -> bool:
        """Whether training leaves `encode` as it is, so that its features may be computed once and kept."""
        return not self._inside() & self._trained

    def encoder_key(self) -> str:
        """What, beside the base and the inputs, decides what `encode` says: the modalities that it looks at and a
        digest of the tensors inside the encoder. Features kept under another key are not this model's."""
        inside = self._inside()
        live = self._tensors() if inside else {}  # asked for with every batch
        tensors = {name: t for name, t in live.items() if name.partition("/")[0] in inside}
        return f"{'+'.join(sorted(self.modalities))}|{self.task.zero_shot}|{tensors_digest(tensors)}"

    def _inside(self) -> set[str]:
        """Parts that work inside the encoder."""
        return {name for name, spec in self.specs.items() if role_of(spec) in ENCODING}

    def _join(self) -> Join | str | None:
        """How the tokens of several modalities meet in the backbone."""
        for name, _ in self._of_kind("join"):
            from common.adapters.pet_pathway import Pathway

            return Pathway(self._part(name), {s.modality: self._part(n) for n, s in self._of_kind("stand_in")})
        beside = any(spec.place == "beside" for _, spec in self._of_kind("patch_embed"))
        return BESIDE if beside else None

    def _segment(self, features: Features, inputs: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
        if not features.pyramid:
            raise AdapterError(f"Step '{self.step.name}' segments volumes, but a batch holds {', '.join(inputs)} only.")
        [(name, _)] = self._of_kind("decoder")
        decoder = self._part(name)
        skip = _where(present[CT], decoder.skip_from(inputs[CT]))
        for name, spec in self._of_kind("skip"):
            if spec.modality in inputs:
                skip = skip + _where(present[spec.modality], self._part(name)(inputs[spec.modality]))
        return decoder(features.pyramid, skip)

    def _embeddings(
        self, features: Features, inputs: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Embeddings of the step's sources, (B, width) each, zero where a case lacks the source; and who has it."""
        some = next(iter(inputs.values()))
        embeddings, has = [], []
        for source, mlp in self._sources():
            there = _any_present(present, source, like=some)
            pooled = features.pooled.get(source)
            if pooled is None:
                pooled = torch.zeros(len(some), _width(self.backbone, source), device=some.device)
            embeddings.append(_where(there, self._part(mlp)(pooled) if mlp else pooled))
            has.append(there)
        return embeddings, has

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

    def parameter_counts(self) -> dict[str, int]:
        """Part -> number of parameters, trained or not; the backbone's are not among them."""
        tensors = self._tensors()
        return {part: sum(tensors[n].numel() for n in names) for part, names in names_by_part(tensors).items()}

    def train(self, mode: bool = True) -> AdaptedModel:
        """Training mode for the trained parts only: the backbone and parts at rest never drop anything out."""
        self.training = mode
        for name in self.part_names:  # the twin stays in evaluation mode
            part = self._injected[name] if name in self._injected else self._part(name)
            part.train(mode and name in self._trained)
        return self

    def _tensors(self) -> dict[str, Tensor]:
        """Live tensors by state name, sorted; looked up once, since loading changes values and not tensors."""
        if self._live is None:
            tensors: dict[str, Tensor] = {}
            for name in self.part_names:
                inside = self._injected[name].tensors() if name in self._injected else tensors_of(self._part(name))
                tensors |= {f"{name}/{path}": tensor for path, tensor in inside.items()}
            self._live = dict(sorted(tensors.items()))
        return self._live

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> AdaptedModel:
        """Where `to` passes through: another device means other buffers."""
        self._live = None
        return super()._apply(fn, recurse)

    # --------------------------------------------------------------------------------------------------- building

    def _inject(self, backbone: Backbone, seed: int) -> dict[str, Any]:
        injected: dict[str, Any] = {}
        for name, spec in self.specs.items():
            with _seeded(seed, name):
                if role_of(spec) == "lora":
                    from common.adapters.lora import inject  # peft takes seconds to import

                    injected[name] = inject(self.backbone, backbone, name=name, spec=spec)
                elif role_of(spec) == "full":
                    from common.adapters.full import own_tensors

                    injected[name] = own_tensors(self.backbone, spec)
        return injected

    def _build_parts(self, backbone: Backbone, seed: int) -> None:
        """Modules in the order in which widths become known: mlp parts, everything else, the head."""
        own = {name: spec for name, spec in self.specs.items() if role_of(spec) not in INJECTED}
        patch, (depth, height, width) = self._patch(backbone), self.step.view.window
        for name in sorted(own, key=lambda name: (role_of(own[name]) != "mlp", name)):
            widths = () if role_of(own[name]) == "mlp" else tuple(self._widths())
            layout = self.linear_layout if role_of(own[name]) == "linear" else None
            around = Surroundings(backbone, self.task.outputs, widths, patch, (depth, height, width), layout)
            with _seeded(seed, name):
                part = build_part(own[name], around)
            self.parts[name] = part
        if self._of_kind("linear"):
            return
        fusions = self._of_kind("fusion")
        with _seeded(seed, HEAD):
            head = self.task.head(self._part(fusions[0][0]).width if fusions else sum(self._widths()))
        if head is not None:
            self.parts[HEAD] = head

    def _patch(self, backbone: Backbone) -> tuple[int, int, int]:
        """Voxels of a token: the backbone's, or what a resolution part makes of it."""
        for _, spec in self._of_kind("resolution"):
            from common.adapters.resolution import adapted_patch

            return adapted_patch(backbone, spec.patch)
        return backbone.patch

    def _train_only(self, patterns: Iterable[str]) -> None:
        names, patterns = self.part_names, list(patterns)
        idle = [p for p in patterns if p != "*" and not any(fnmatchcase(name, p) for name in names)]
        if idle:
            raise AdapterError(
                f"train_parts names {', '.join(map(repr, idle))}, which match no part; parts: {', '.join(names)}."
            )
        self._trained = {name for name in names if any(fnmatchcase(name, p) for p in patterns)}
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

    def _widths(self) -> list[int]:
        """Widths of the embeddings that a fusion or the head sees, in order."""
        return [self._part(mlp).width if mlp else _width(self.backbone, source) for source, mlp in self._sources()]

    def _sources(self) -> list[tuple[str, str | None]]:
        """(source, mlp part or None) for each embedding that the head sees, in a fixed order."""
        sources: list[tuple[str, str | None]] = []
        for source in SOURCES:
            if any(feeds(modality, source) for modality in self.modalities):
                mlps = [name for name, spec in self._of_kind("mlp") if spec.input == source]
                sources += [(source, mlp) for mlp in mlps] or [(source, None)]
        return sources

    def _of_kind(self, kind: str) -> list[tuple[str, Any]]:
        return [(name, spec) for name, spec in self.specs.items() if role_of(spec) == kind]

    def _part(self, name: str) -> Any:
        return self.parts[name]


def _check_parts(step: Step) -> None:
    """Which parts a step may combine; everything wrong at once."""
    wrong = misfits(step)
    if wrong:
        said = "; ".join(sentence.rstrip(".") for sentence in wrong)
        raise AdapterError(f"The adapter of step '{step.name}' does not hold together: {said}.")


@contextmanager
def _seeded(seed: int, part: str) -> Iterator[None]:
    """A block in which torch's global generator belongs to one part, and after which it is as before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(seed, "part", part))
        yield


def _width(backbone: Backbone, source: str) -> int:
    return backbone.image_dim if source == IMAGE else backbone.text_dim


def _any_present(present: Mapping[str, Tensor], source: str, *, like: Tensor) -> Tensor:
    """bool (B,): cases that have at least one of the modalities of a source."""
    there = torch.zeros(len(like), dtype=torch.bool, device=like.device)
    for modality in (m for m in present if feeds(m, source)):
        there = there | present[modality]
    return there


def _where(present: Tensor, values: Tensor) -> Tensor:
    """Values (B, ...) of the cases where something is present, zero elsewhere."""
    return torch.where(present.view(-1, *[1] * (values.dim() - 1)), values, torch.zeros_like(values))
