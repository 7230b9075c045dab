"""The probe: a step's outputs on a fixed synthetic input, recomputed by a fresh process to prove nothing drifted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from common.backbones import backbone_digest, load_backbone
from common.backbones.base import Backbone
from common.config.run import BackboneSpec
from common.config.step import Step
from common.data.batch import EHR, RECORD
from common.exact.step import records_of
from common.model.adapted import AdaptedModel
from common.protocol.messages import State
from common.seeding import generator_for
from common.store.bank import AdapterBank
from common.store.bases import Bases
from common.store.ledger import Ledger
from server.run.folder import RunFolder

PROBE_REPORT = "63 year old man. weight 80 kg. smoker. hpv positive. chemotherapy given."


@dataclass
class Verification:
    """What a fresh process found."""

    changed_bits: dict[str, int]
    base_after: str

    @property
    def total(self) -> int:
        """Changed bits over all steps."""
        return sum(self.changed_bits.values())


def probe_output(backbone: Backbone, step: Step, state: State, *, seed: int) -> Tensor:
    """The adapted model's output on seeded noise of the step's window, all its modalities present. One thread."""
    model = AdaptedModel(backbone, step, seed=seed)
    model.load(state)
    model.eval()
    inputs: dict[str, Tensor] = {}
    for modality in step.modalities:
        if modality == EHR:
            inputs[modality] = backbone.tokenizer([PROBE_REPORT])
        elif modality == RECORD:
            layout = records_of(step)
            inputs[modality] = torch.ones(1, len(layout.values) + len(layout.flags), dtype=torch.float64)
        else:
            generator = generator_for("probe", modality)
            inputs[modality] = torch.rand((1, 1, *step.view.window), generator=generator) * 2 - 1
    present = {modality: torch.ones(1, dtype=torch.bool) for modality in inputs}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            return model(inputs, present).contiguous()
    finally:
        torch.set_num_threads(threads)


def changed_bits(a: Tensor, b: Tensor) -> int:
    """How many bits differ between two tensors; every bit of the larger when the shapes do."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return 8 * max(a.numel() * a.element_size(), b.numel() * b.element_size())
    differing = a.reshape(-1).view(torch.uint8) ^ b.reshape(-1).view(torch.uint8)
    return int(sum(((differing >> bit) & 1).sum() for bit in range(8)))


def verify_run(folder: RunFolder, spec: BackboneSpec, *, seed: int, backbone: Backbone | None = None) -> Verification:
    """Rebuild every finished step from bank and base and compare its outputs with those of its commit."""
    backbone = backbone or load_backbone(spec)
    bank, ledger = AdapterBank(folder.bank), Ledger(folder.ledger)
    ledger.verify()
    changed: dict[str, int] = {}
    committed = {event["step"]: event["key"] for event in ledger.events("step_finished")}
    committed |= {f"{e['step']} without {e['without']}": e["key"] for e in ledger.events("step_refitted")}
    bases = Bases(bank)
    grown = {digest: bases.made(ref, backbone) for digest, ref in bases.known().items()}
    for name, key in committed.items():
        entry = bank.entry(key)
        output = probe_output(grown.get(entry.base, backbone), entry.step, bank.get(key), seed=seed)
        changed[name] = changed_bits(output, bank.probe(key))
    return Verification(changed, backbone_digest(backbone))
