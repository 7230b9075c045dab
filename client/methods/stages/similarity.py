"""Maximum data similarity: which of a task's cases the original model restores best, by its own head (MedSeqFT).

A case's score is the mean loss of masked modelling over many masks. It is computed case by case in evaluation mode, and
each mask is drawn from the patient and its number alone: a score depends neither on the order of cases nor on who
computes it. What is shown is the original stage's own view, one crop rule for every case: where crops
differ, a loss that is lowest over air chooses empty ones. Scores stay at the center.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from client.training.batches import Cases
from common.data.sources import HIDDEN, Source, named_sources
from common.model.adapted import AdaptedModel
from common.model.masking import View, as_form, hidden_of, look, masked_loss, patches_of, seen_places
from common.seeding import generator_for

AT_A_TIME = 8  # masks of one case in a batch; fixed, so that no sum depends on how many are asked for


@torch.no_grad()
def losses(model: AdaptedModel, cases: Cases, *, draws: int) -> dict[str, float]:
    """Patient -> mean loss over ``draws`` masks, under a masked step's model.

    Args:
        model: the original, with its own decoders; volumes of its first source are looked at.
        cases: as that model's step sees them.
    """
    source = named_sources(model.step.task.sources)[0]
    return {case.patient: _loss(model, cases, place, source, draws) for place, case in enumerate(cases.cases)}


def most_similar(scores: Mapping[str, float], *, kept: int) -> list[str]:
    """The patients of lowest loss, ties by name; in the order of names."""
    return sorted(sorted(scores, key=lambda patient: (scores[patient], patient))[:kept])


def foreground(cases: Cases, patients: Sequence[str], source: Source) -> float:
    """Mean share of voxels above the lowest value of the view, over these patients: what was chosen to be seen."""
    shares = []
    for place, case in enumerate(cases.cases):
        if case.patient in patients:
            values = cases.collate([place]).inputs[source.modality]
            shares.append(float((values > values.min()).float().mean()))
    return sum(shares) / len(shares) if shares else 0.0


def _loss(model: AdaptedModel, cases: Cases, place: int, source: Source, draws: int) -> float:
    patient = cases.cases[place].patient
    values = as_form(cases.collate([place]).inputs[source.modality].to(model.device), source, in_training=False)
    patch = model.backbone.patch[0]
    patches = patches_of(values.float(), patch)
    number, total = patches.shape[1], 0.0
    noise = torch.stack([
        torch.rand(number, generator=generator_for("similarity", patient, draw)) for draw in range(draws)
    ]).to(model.device)  # fmt: skip
    decoder = model.parts["head"][source.name]  # type: ignore[index]
    for rows in noise.split(AT_A_TIME):
        seen = seen_places(rows, share=model.step.task.hidden or HIDDEN[source.form])
        shown = values.expand(len(rows), *values.shape[1:])
        prediction = decoder(look(model.backbone, View(shown, seen)), seen).float()
        found = masked_loss(prediction, patches.expand(len(rows), -1, -1), hidden_of(seen, number))
        total += float(found.double().sum())
    return total / draws
