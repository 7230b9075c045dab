"""The local loop's settings."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Training:
    """The local loop's settings, per round."""

    epochs: int = 1  # passes over the local training cases in one round
    batch: int = 4  # cases
    learning_rate: float = 1e-3  # AdamW's
    optimizer: str = "adamw"  # adamw, or sgd: plain steps, for a server that does Adam's part (federation=fedadam)
    # What Adam keeps between rounds: fresh (nothing), center (each its own), averaged (the centers' mean travels);
    # empty: fresh in a federation, and kept by a baseline in one place, as anyone would.
    moments: str = ""
    anneal: bool = False  # let the learning rate fall over the step's rounds, along half a cosine
    weight_decay: float = 1e-5  # AdamW's
    clip_norm: float = 1.0  # of the gradient; 0 switches it off
    augment: bool = True  # mirror and shift intensities; off lets frozen features be cached
    # Further random views of training images: affine, blur, elastic, gamma, low_resolution, noise, scanner.
    views: list[str] = field(default_factory=list)
    foreground: float = 0.5  # probability that a training window of a larger crop is made to hold a labeled voxel
    # Which images a batch shows, by probability, of cases that have both: {CT+PET: 0.6, CT: 0.2, PET: 0.2} is PEMMA's
    # modality draw, {PET: 1.0} a stage where only PET arrives. Empty: everything a case has.
    draw: dict[str, float] = field(default_factory=dict)
