"""Licences of frozen models' weights: what holds for every adapter that was learned on them."""

from __future__ import annotations

from dataclasses import dataclass

from common.backbones import BACKBONES, needs_weights
from common.config.run import BackboneSpec

OWN = "Apache-2.0"  # fedgraft's own: the mini weights, trained on synthetic volumes, and weights drawn from a seed
NON_COMMERCIAL = "-NC-"


@dataclass(frozen=True)
class WeightsLicence:
    """Under what a frozen model's weights may be used.

    Args:
        name: the model, in words.
        spdx: SPDX identifier; empty where only whoever brought the file can know.
    """

    name: str
    spdx: str

    @property
    def sentence(self) -> str:
        """What whoever uses an adapter on it must know."""
        if not self.spdx:
            return (
                f"Its base is {self.name}, from a file whose licence fedgraft does not know: that licence holds for "
                "this adapter, too."
            )
        restricted = ", so it is for non-commercial use only, and shared alike" if NON_COMMERCIAL in self.spdx else ""
        return f"Its base is {self.name} under {self.spdx}{restricted}."


def licence_of(spec: BackboneSpec) -> WeightsLicence:
    """The licence of a frozen model's weights. Raises UnknownName: no such kind."""
    name = f"{spec.kind} {spec.config}"
    if not (spec.weights or needs_weights(spec)):
        return WeightsLicence(name, OWN)
    return WeightsLicence(name, BACKBONES[spec.kind].licences.get(spec.config, ""))
