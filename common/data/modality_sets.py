"""Modes: the sets of modalities that a step is trained, validated and scored with, written "CT", "PET" or "CT+PET"."""

from __future__ import annotations

from common.config.step import Step
from common.data.batch import EHR, mode_of, parse_mode


def scored_modes(step: Step) -> list[str]:
    """Modes that a step is scored in, as an order carries them; the empty one shows whatever a case has."""
    return list(step.modes) or [""]


def mode_label(step: Step, mode: str) -> str:
    """A mode's name in a table."""
    return mode or "+".join(step.modalities)


def drawable(step: Step) -> list[str]:
    """Modes that the step's training may draw; none without a draw."""
    return [mode for mode, weight in sorted(step.training.draw.items()) if weight > 0]


def validation_mode(step: Step) -> str:
    """The fullest mode that the step trains in: a hospital that receives PET alone has no CT to validate with."""
    if not drawable(step):
        return ""
    fullest = max(drawable(step), key=lambda mode: len(parse_mode(mode)))
    seen = {*parse_mode(fullest)} | {EHR} & {*step.modalities}
    return "" if seen == {*step.modalities} else mode_of(seen)


def answers_from(step: Step, modalities: set[str]) -> int:
    """How many of the given modalities the step's adapter would use: those of its fullest mode that they cover.

    0: it cannot answer. Without modes an adapter answers from all of its modalities only.
    """
    modes = [{*parse_mode(mode)} for mode in step.modes] + [{*step.modalities}]
    return max((len(mode) for mode in modes if mode <= modalities), default=0)
