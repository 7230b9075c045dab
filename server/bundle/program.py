"""The network with its adapter as one exported program: images in, the task's output out, no class of ours inside."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from common.data.batch import WRITTEN
from common.errors import BankError
from common.model.adapted import AdaptedModel


class Program(nn.Module):
    """What is exported: an adapted model of which every modality is present.

    Args:
        model: of a step that answers from images alone.
    """

    def __init__(self, model: AdaptedModel):
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        """The task's output of prepared windows.

        Args:
            image: float32 (B, M, D, H, W), the step's modalities in their order as channels.
        """
        inputs = {name: image[:, i : i + 1] for i, name in enumerate(self.model.modalities)}
        present = {name: torch.ones(image.shape[0], dtype=torch.bool) for name in inputs}
        return self.model(inputs, present)


def write_program(path: Path, model: AdaptedModel) -> int:
    """Export the model for windows of its step's view, one at a time; how many channels its output has.

    Raises:
        BankError: the step looks at a report or a record, which no image holds, or its model depends on values.
    """
    words = sorted(set(model.modalities) & set(WRITTEN))
    if words:
        raise BankError(
            f"'{model.step.name}' also reads {' and '.join(words)}, which a MONAI bundle of images cannot hold; use "
            "`python -m client predict`, or export a lineage of images alone."
        )
    example = torch.zeros(1, len(model.modalities), *model.step.view.window)
    network = Program(model).eval()
    try:
        with torch.no_grad():
            program = torch.export.export(network, (example,))
    except RuntimeError as error:  # how it works depends on values, as a join of tokens by who has what
        raise BankError(
            f"'{model.step.name}' cannot be exported as one program ({type(error).__name__}: "
            f"{str(error).splitlines()[0][:200]}); use `python -m client predict`."
        ) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.export.save(program, path)
    return int(network(example).shape[1])
