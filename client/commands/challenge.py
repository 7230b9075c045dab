"""Answer one patient as a container of HECKTOR 2026 must: /input in, /output out, nothing else touched.

The container's entry point: the bank lies inside the image, and no network is needed.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from client.commands.predict import Bank
    from client.data.case import Case
    from common.store.bank import Entry

EXAMPLE = (
    "python -m client challenge --bank adapters\n"
    "  python -m client challenge --bank adapters --input test/input --output test/output"
)
REGION = "head_neck"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bank", type=Path, required=True, help="an exported folder, or a run's bank")
    parser.add_argument("--signer", metavar="FINGERPRINT", help="of the coordinator's key; refuses any other's export")
    parser.add_argument("--input", type=Path, default=Path("/input"), help="images/ct, images/pet, ehr.json (/input)")
    parser.add_argument("--output", type=Path, default=Path("/output"), help="where the four answers go (/output)")
    parser.add_argument("--weights", type=Path, help="of the bank's frozen model, where they do not ship with fedgraft")
    parser.add_argument("--text-folder", type=Path, help="CXR-BERT's, where that model is the released CT-CLIP")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))


def run(arguments: argparse.Namespace) -> int:
    """Exit code 1 where the bank learned no answer to something that the challenge asks."""
    import torch

    from client.challenge.interface import absent, only_image, read_ehr
    from client.challenge.metaimage import read_mha
    from client.commands.predict import Models, frozen_candidates, open_bank
    from client.commands.prepare import write_nifti
    from client.data.case import Case
    from common.data.batch import CT, PET

    torch.set_num_threads(1)
    scans = {CT: read_mha(only_image(arguments.input, "ct")), PET: read_mha(only_image(arguments.input, "pet"))}
    record, refused = read_ehr(arguments.input / "ehr.json")
    for sentence in refused:
        print(f"ehr.json: {sentence}")
    bank = open_bank(arguments.bank, signer=arguments.signer)
    candidates = frozen_candidates(bank.backbone, weights=arguments.weights, text_folder=arguments.text_folder)
    models = Models(bank.adapters, candidates, named=bank.backbone, device=arguments.device)
    with tempfile.TemporaryDirectory() as scratch:
        paths = {modality: Path(scratch) / f"{modality}.nii.gz" for modality in scans}
        for modality, path in paths.items():
            write_nifti(path, *scans[modality])
        case = Case("patient", "", paths, None, record, None, None, None, None)
        written = _answer(case, bank, models, arguments, affine=scans[CT][1])
    print(f"{arguments.output}: {', '.join(written) or 'nothing'}")
    lacking = absent(written)
    if lacking:
        print(f"the bank learned no answer for {', '.join(lacking)}; it has {bank.adapters.learned()}")
    return 1 if lacking else 0


def _answer(case: Case, bank: Bank, models: Any, arguments: argparse.Namespace, *, affine: np.ndarray) -> list[str]:
    """Write what each fitting head says; the files' names."""
    from client.challenge.interface import MASK
    from client.challenge.metaimage import write_mha
    from client.commands.predict import chosen, predict_case
    from common.files import write_json

    found = []
    for entry in chosen(bank.adapters, case, region=REGION):
        name = _file_of(entry)
        if name is None:
            continue
        known = bank.known.get(entry.key, {})
        answer = predict_case(models.of(entry), case, known=known, device=arguments.device)
        if name == MASK:
            write_mha(arguments.output / name, answer["mask"], affine)
        else:
            write_json(arguments.output / name, _said(entry, answer))
        found.append(name)
    return sorted(found)


def _file_of(entry: Entry) -> str | None:
    """Which of the challenge's four answers a head gives; None: none of them."""
    from client.challenge.interface import MASK, RFS, STAGES, STRUCTURES

    task: Any = entry.step.task
    if task.kind == "segmentation":
        return MASK if list(task.structures) == STRUCTURES else None
    if task.kind == "prognosis":
        return RFS
    return STAGES.get(getattr(task, "target", ""))


def _said(entry: Entry, answer: dict[str, Any]) -> str | float:
    from client.challenge.interface import days_of, stage_of

    return days_of(answer) if entry.step.task.kind == "prognosis" else stage_of(answer)
