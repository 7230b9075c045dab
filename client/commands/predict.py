"""Use a learned adapter on this hospital's own images: masks on each CT's own grid, risks, survival curves, findings.

The bank is a run's bank folder or what the coordinator exported; no server and no center.yaml are needed. For every
question that the bank has learned to answer the fitting head is chosen: the one that uses the most of what a case has.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch

    from client.data.case import Case
    from client.data.images.volumes import Prepared
    from client.dicom.results.origin import Origin
    from client.dicom.series import Series
    from common.backbones.base import Backbone
    from common.config.run import BackboneSpec
    from common.config.step import Step
    from common.model.adapted import AdaptedModel
    from common.store.bank import AdapterBank, Entry
    from common.store.tested import Card

EXAMPLE = (
    "python -m client predict --bank runs/quickstart --ct CHUM-001__CT.nii.gz --pet CHUM-001__PT.nii.gz --out out\n"
    "  python -m client predict --bank runs/quickstart --folder /data/hecktor --out out\n"
    "  python -m client predict --bank runs/quickstart --dicom /export/pacs --out out"
)
PRETEXT = "masked"  # a task that stages of self-supervised learning restore hidden parts by; no answer about a case
SHIPPED = ("mini", "tiny")  # frozen models that come with fedgraft: configs/backbone


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bank", type=Path, required=True, help="folder with the bank's heads.json, or one above it")
    parser.add_argument("--signer", metavar="FINGERPRINT", help="of the coordinator's key; refuses any other's export")
    parser.add_argument("--out", type=Path, required=True, help="where masks and predictions.json go")
    parser.add_argument("--ct", type=Path, help="one CT (NIfTI)")
    parser.add_argument("--pet", type=Path, help="its PET in SUV (NIfTI)")
    parser.add_argument("--folder", type=Path, help="instead: every case of a folder")
    parser.add_argument(
        "--dicom",
        type=Path,
        help="instead: DICOM series of CT and PET; answers are written as SEG, RTSTRUCT and SR too",
    )
    parser.add_argument(
        "--examination",
        choices=("only", "earliest", "latest"),
        default="only",
        help="of several examinations of a patient in --dicom (only)",
    )
    parser.add_argument("--codes", type=Path, help="YAML with codes of structures that --dicom does not know")
    parser.add_argument(
        "--layout", default="auto", help="of --folder: hecktor, nnunet, brats, a YAML that declares it (auto)"
    )
    parser.add_argument("--mapping", type=Path, help="the hospital's own table mapping for --folder (configs/mapping)")
    parser.add_argument("--lineage", help="use this lineage's head only, instead of the fitting one of every question")
    parser.add_argument("--region", default="head_neck", help="what the images show (head_neck)")
    parser.add_argument("--weights", type=Path, help="of the bank's frozen model, where they do not ship with fedgraft")
    parser.add_argument("--text-folder", type=Path, help="CXR-BERT's, where that model is the released CT-CLIP")
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="FILE", help="own code that the bank's adapters are made with"
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))


def run(arguments: argparse.Namespace) -> int:
    """Predict for every case, write, and print one line each."""
    import torch

    from common.errors import BankError, DataError, UnknownName
    from common.files import write_json
    from common.plugins import load

    torch.set_num_threads(1)
    load(arguments.plugin, folder=Path.cwd())
    cases = _dicom_cases(arguments) if arguments.dicom is not None else [Asked(c.patient, c) for c in _cases(arguments)]
    bank = open_bank(arguments.bank, signer=arguments.signer)
    found: dict[str, dict[str, Any]] = {}
    candidates = frozen_candidates(bank.backbone, weights=arguments.weights, text_folder=arguments.text_folder)
    models = Models(bank.adapters, candidates, named=bank.backbone, device=arguments.device)
    refused = 0
    try:
        for asked in cases:
            found[asked.name] = {}
            try:
                _answer_one(asked, found[asked.name], bank, models, arguments)
            except UnknownName as error:
                raise BankError(
                    f"{error} If it is own code of the coordinator's, name your copy of its file: --plugin FILE.py."
                ) from error
            except (DataError, BankError) as error:  # one patient's files cost that patient only
                if len(cases) == 1 or (arguments.lineage is not None and isinstance(error, BankError)):
                    raise
                refused += 1
                found[asked.name]["refused"] = str(error)
                print(f"{asked.name}: refused: {error}")
    finally:  # also when it is stopped half-way: masks that were written keep what was said beside them
        if answered := {name: said for name, said in found.items() if _says_anything(said)}:
            write_json(arguments.out / "predictions.json", answered)
    print(f"{arguments.out / 'predictions.json'}: {len(found)} cases" + (f", {refused} refused" if refused else ""))
    return 1 if refused else 0


def _says_anything(said: Mapping[str, Any]) -> bool:
    """Whether a head answered a case, or it was refused."""
    return "refused" in said or any(isinstance(answer, dict) and "task" in answer for answer in said.values())


@dataclass(frozen=True)
class Asked:
    """A case to answer: one that lies in files, or a patient's DICOM series that become one."""

    name: str
    case: Case | None = None
    series: tuple[Series, ...] = ()


def _answer_one(asked: Asked, found: dict[str, Any], bank: Bank, models: Models, arguments: argparse.Namespace) -> None:
    """Answer one case. Scans from DICOM lie as files beside the answers for so long, and no longer."""
    if asked.case is not None:
        return _answer(asked.case, found, bank, models, arguments)
    import tempfile

    from client.dicom.results.origin import read_examination

    origin, images = read_examination(asked.series, which=arguments.examination)
    found["series"] = origin.series
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.out, prefix=".scans-") as scratch:
        _answer(_as_case(asked.name, images, Path(scratch)), found, bank, models, arguments, origin)


def _as_case(name: str, images: Mapping[str, tuple[np.ndarray, np.ndarray]], folder: Path) -> Case:
    from client.commands.prepare import write_nifti
    from client.data.case import Case

    paths = {modality: folder / f"{name}__{modality}.nii.gz" for modality in images}
    for modality, path in paths.items():
        write_nifti(path, *images[modality])
    return Case(name, "", paths, None, {}, None, None, None, None)


def _answer(
    case: Case,
    found: dict[str, Any],
    bank: Bank,
    models: Models,
    arguments: argparse.Namespace,
    origin: Origin | None = None,
) -> None:
    """What every chosen head says of one case, into ``found``; masks are written, of a case from DICOM all answers."""
    from common.store.tested import in_words, score_in

    if origin is not None:
        from client.dicom.results.codes import codes_of
        from client.dicom.results.origin import Author
        from client.dicom.results.writing import write_answer
        from common.runtime.release import version
    for entry in chosen(bank.adapters, case, region=arguments.region, lineage=arguments.lineage):
        codes = None if origin is None else codes_of(entry.step, arguments.codes)
        known = bank.known.get(entry.key, {})
        answer = predict_case(models.of(entry), case, known=known, device=arguments.device)
        tested = score_in(bank.tested.get(entry.key), mode_of(case, entry.step))
        notes = [in_words(tested), *uncalibrated(entry.step.task, known)]
        mask = answer.pop("mask", None)
        if mask is not None:
            path = arguments.out / f"{case.patient}__{entry.lineage}.nii.gz"
            _write_mask(path, mask, case)
            answer["mask"] = path.name
        if origin is not None:
            author = Author(entry.lineage, entry.key, entry.base, version(), notes[0], tuple(notes[1:]))
            stem = arguments.out / f"{case.patient}__{entry.lineage}"
            answer["dicom"] = write_answer(stem, mask, answer, entry.step, origin, codes=codes or {}, author=author)
        card = {"task": entry.step.task.kind, "adapter": entry.key, "tested": tested, "notes": notes}
        found[entry.lineage] = {**card, **answer}
        print(f"{case.patient} {entry.lineage}: {_line(answer)}; {'; '.join(notes)}")


def mode_of(case: Case, step: Step) -> str:
    """The modalities that a step sees of a case, as score rows name them: ``CT+PET``."""
    has = set(modalities_of(case))
    return "+".join(modality for modality in step.modalities if modality in has)


def uncalibrated(task: Any, known: Mapping[str, Any]) -> list[str]:
    """What must be said of an answer's probabilities, where nothing fitted them to patients."""
    if task.kind == "classification" and "temperature" not in known:
        return ["uncalibrated: no temperature was fitted, so these are no probabilities to act on"]
    if task.kind == "prognosis" and task.loss == "cox" and "baseline" not in known:
        return ["a risk only: no baseline hazard was learned, so there is no curve"]
    return []


@dataclass(frozen=True)
class Bank:
    """A bank to predict from.

    Args:
        backbone: the frozen model that an export or a run's configuration names; an export's without its files,
            which lie with the coordinator.
        tested: by key, what the adapter scored on test cases (`common.store.tested`); absent: never scored.
        known: by key, what the federation learned from sums to read outputs by: a temperature, a baseline hazard.
    """

    adapters: AdapterBank
    backbone: BackboneSpec | None
    known: dict[str, dict[str, Any]]
    tested: dict[str, Card]


def open_bank(given: Path, *, signer: str | None = None) -> Bank:
    """A run's own bank, or an exported one after its signature was checked.

    Raises:
        BankError: there is no bank, an export was changed after it was signed, or not ``signer`` signed it.
    """
    from common.errors import BankError
    from common.store.bank import AdapterBank
    from common.store.exported import bank_in, check_export, export_of
    from common.store.ledger import Ledger
    from common.store.tested import known_by_key, scores_by_key

    folder, top = bank_in(given), export_of(given)
    if folder is None:
        raise BankError(f"{given} is no adapter bank: it has no heads.json; name runs/NAME or an exported folder.")
    if top is None and signer is not None:
        raise BankError(f"{given} is not signed: it is a run's own bank and no export; leave --signer out to trust it.")
    manifest = {} if top is None else check_export(top, signer=signer)
    cards, events = manifest.get("adapters", {}), Ledger(folder.parent / "ledger.jsonl").events()
    known = known_by_key(events) | {key: card.get("known", {}) for key, card in cards.items()}
    tested = scores_by_key(events) | {key: card["tested"] for key, card in cards.items() if card.get("tested")}
    return Bank(AdapterBank(folder), _named_backbone(folder.parent / "config.yaml", manifest), known, tested)


def _named_backbone(config: Path, manifest: Mapping[str, Any]) -> BackboneSpec | None:
    """The frozen model of an export's manifest, without the coordinator's files; else that of a run's config.yaml."""
    from omegaconf import OmegaConf

    from common.config.load import from_json
    from common.config.run import BackboneSpec

    if "backbone" in manifest:
        return replace(from_json(BackboneSpec, json.dumps(manifest["backbone"])), weights=None, text_folder=None)
    if manifest or not config.is_file():
        return None
    run: Any = OmegaConf.to_container(OmegaConf.load(config))
    return from_json(BackboneSpec, json.dumps(run["backbone"]))


def frozen_candidates(
    named: BackboneSpec | None, *, weights: Path | None = None, text_folder: Path | None = None
) -> list[BackboneSpec]:
    """Frozen models that may be a bank's: the one that it names, with the given files; without given weights also
    those that come with fedgraft.

    Args:
        named: None: the released CT-CLIP.
    """
    from common.config.load import compose_run
    from common.config.run import BackboneSpec

    named = named or BackboneSpec(config="released")
    own = replace(
        named,
        weights=named.weights if weights is None else str(weights),
        text_folder=named.text_folder if text_folder is None else str(text_folder),
    )
    if weights is not None:
        return [own]
    return ([own] if _is_here(own) else []) + [compose_run([f"backbone={name}"]).backbone for name in SHIPPED]


def _is_here(spec: BackboneSpec) -> bool:
    """Whether a frozen model can be loaded without another file."""
    from common.backbones import needs_weights

    return Path(spec.weights).is_file() if spec.weights else not needs_weights(spec)


def chosen(bank: AdapterBank, case: Case, *, region: str, lineage: str | None = None) -> Iterator[Entry]:
    """The heads to use for a case: a named one, or for every question that was learned the fitting one.

    Raises:
        BankError: the lineage was never learned, or nothing in the bank fits the case.
    """
    from common.data.modality_sets import answers_from
    from common.errors import BankError
    from common.tasks import question_of

    if lineage is not None:
        yield bank.entry(bank.head(lineage))
        return
    has = modalities_of(case)
    steps = [bank.entry(key).step for key in bank.heads().values()]
    steps = [step for step in steps if step.task.kind != PRETEXT]
    fitting = sorted({question_of(s.task) for s in steps if s.region == region and answers_from(s, {*has})})
    if not fitting:
        raise BankError(
            f"The bank learned nothing for {region} from {'+'.join(has) or 'nothing'}; it has {bank.learned()}."
        )
    for task, about in fitting:
        yield bank.entry(bank.route(task=task, about=about, modalities=has, region=region, center=case.center))


def modalities_of(case: Case) -> list[str]:
    """What a case can show to a step."""
    from client.data.hecktor.reports import report_text
    from common.data.batch import EHR, RECORD, in_order, volumes_of

    has_text, has_fields = bool(report_text(case.record)), bool(case.record)
    return list(in_order([*volumes_of(case.images), *[EHR] * has_text, *[RECORD] * has_fields]))


def predict_case(
    model: AdaptedModel, case: Case, *, known: Mapping[str, Any] | None = None, device: str = "cpu"
) -> dict[str, Any]:
    """What one adapter says of one case: ``mask`` uint8 on the CT file's own grid, ``risk`` with a survival curve, or
    probabilities by class.

    Args:
        known: what outputs are read by (`Bank.known`).
    """
    import numpy as np
    import torch

    from client.data.dataset import shows, unlabeled
    from client.data.images.volumes import prepare
    from client.training.prediction import answered
    from common.data.batch import volumes_of
    from common.tasks import build_task

    step, prepared = model.step, None
    if volumes_of(shows(case, step)):
        prepared = prepare(case, view=step.view, modalities=step.modalities, with_label=False)
    with torch.no_grad():
        batch = unlabeled(case, prepared, step, tokenizer=model.backbone.tokenizer).to(device)
        output = answered(model, batch, step).cpu()
    read_by = {name: np.array(value, np.float64) for name, value in (known or {}).items()}
    return _read(build_task(step.task, read_by), output, prepared, case)


def _read(task: Any, output: torch.Tensor, prepared: Prepared | None, case: Case) -> dict[str, Any]:
    """A task's output in words of the clinic. A Cox model without its baseline hazard has a risk but no curve."""

    from client.training.prediction import mask_on
    from common.errors import ConfigError

    if task.kind == "segmentation" and prepared is not None:
        mask, voxel_ml = mask_on(output[0].softmax(dim=0).numpy(), prepared.affine, case.images[case.reference])
        volumes = {name: float(where.sum() * voxel_ml) for name, where in task.inside(mask).items()}
        return {"mask": mask, "milliliters": {name: round(volume, 3) for name, volume in volumes.items()}}
    if task.kind == "grounding" and prepared is not None:
        from client.data.boxes import found_boxes

        return {"boxes": found_boxes(task, output[0], prepared)}
    if task.kind == "prognosis":
        answer = {"risk": float(task.risk(output)[0])}
        if task.spec.loss == "cox" and "baseline" not in task.known:
            return answer
        return {**answer, "days": task.cuts.tolist(), "relapse_free": task.survival_curve(output)[0].tolist()}
    if task.kind == "classification":
        return {"probabilities": dict(zip(task.classes, task.probabilities(output)[0].tolist(), strict=True))}
    raise ConfigError(f"predict does not know how to show the task '{task.kind}'; name another adapter with --lineage.")


def _write_mask(path: Path, mask: np.ndarray, case: Case) -> None:
    import nibabel as nib

    from client.commands.prepare import write_nifti
    from client.data.images.nifti import in_mm

    image: Any = nib.load(case.images[case.reference])
    write_nifti(path, mask, in_mm(image))


def _cases(arguments: argparse.Namespace) -> list[Case]:
    """One case from two files, or all of a folder. Raises ConfigError, DataError."""
    from client.data.case import Case
    from client.data.layouts import find_cases
    from common.data.batch import CT, PET
    from common.errors import ConfigError

    if (arguments.ct is None) == (arguments.folder is None):
        raise ConfigError(
            "Name one CT with --ct, and its PET with --pet, or a folder of cases with --folder, or DICOM with --dicom."
        )
    if arguments.folder is not None:
        return find_cases(arguments.folder, mapping=arguments.mapping, layout=arguments.layout)
    images = {CT: arguments.ct} | ({} if arguments.pet is None else {PET: arguments.pet})
    name = re.sub(r"(__CT|_ct)?\.nii(\.gz)?$", "", arguments.ct.name)
    return [Case(name, "", images, None, {}, None, None, None, None)]


def _dicom_cases(arguments: argparse.Namespace) -> list[Asked]:
    """The patients of a folder of DICOM series, named by number: file names hold no identifier. Raises as `_cases`.

    Series without a patient's number are one case for each study: nothing says that two studies are one person's.
    """
    from client.dicom.series import find_series
    from common.errors import ConfigError

    if arguments.ct is not None or arguments.pet is not None or arguments.folder is not None:
        raise ConfigError("Name either DICOM series with --dicom, or files with --ct and --pet, or a --folder.")
    patients = find_series(arguments.dicom).patients
    nameless: dict[str, list[Series]] = {}
    for series in patients.pop("", []):
        nameless.setdefault(series.study, []).append(series)
    every = [*(patients[name] for name in sorted(patients)), *(nameless[study] for study in sorted(nameless))]
    return [Asked(f"case-{number:03d}", series=tuple(series)) for number, series in enumerate(every, start=1)]


class Models:
    """The adapted models of a bank by key, and their frozen models by digest, made when one is first asked for.

    Args:
        candidates: frozen models to try, in this order.
        named: the one that the bank names, to ask for its weights.
    """

    def __init__(
        self, bank: AdapterBank, candidates: Sequence[BackboneSpec], *, named: BackboneSpec | None, device: str
    ):
        self._bank, self._device = bank, device
        self._specs, self._tried = list(candidates), " or ".join(dict.fromkeys(map(_name, candidates)))
        self._wanted = "" if named is None else _wanted(named)
        self._backbones: dict[str, Backbone] = {}
        self._models: dict[str, AdaptedModel] = {}

    def of(self, entry: Entry) -> AdaptedModel:
        """The model of an entry. Raises BackboneError where no frozen model here has its digest, or where its features
        were harmonized by center."""
        from common.config.declared import harmonizes
        from common.errors import BackboneError
        from common.model.adapted import AdaptedModel

        if harmonizes(entry.step):
            raise BackboneError(
                f"The adapter '{entry.lineage}' reads features that were harmonized by center, and a bank holds no "
                "center's location and scale; name another one with --lineage."
            )
        if entry.key not in self._models:
            model = AdaptedModel(self._backbone(entry), entry.step, seed=0)
            model.load(self._bank.get(entry.key))
            self._models[entry.key] = model.to(self._device).eval()
        return self._models[entry.key]

    def _backbone(self, entry: Entry) -> Backbone:
        from common.backbones import backbone_digest, load_backbone
        from common.errors import BackboneError

        self._add_grown(entry.base)
        while entry.base not in self._backbones and self._specs:
            backbone = load_backbone(self._specs.pop(0)).to(self._device)
            self._backbones[backbone_digest(backbone)] = backbone
            self._add_grown(entry.base)
        if entry.base not in self._backbones:
            raise BackboneError(
                f"The adapter '{entry.lineage}' was learned on the frozen model {entry.base[:12]}, which is not "
                f"{self._tried}; name its weights with --weights{self._wanted}."
            )
        return self._backbones[entry.base]

    def _add_grown(self, digest: str) -> None:
        """The base of a digest, where it grew from a frozen model that is here."""
        from common.store.bases import Bases

        bases = Bases(self._bank)
        ref = bases.ref(digest) if digest not in self._backbones else None
        if ref is not None and ref.root in self._backbones:
            root = self._backbones[ref.root]
            self._backbones[digest] = bases.build(digest, root, root_digest=ref.root).to(self._device)


def _name(spec: BackboneSpec) -> str:
    return spec.weights or (spec.config if spec.kind == "ct_clip" else spec.kind)


def _wanted(spec: BackboneSpec) -> str:
    """The weights of a frozen model, in words that go on after their option; nothing of one that needs none."""
    from common.backbones import BACKBONES, needs_weights

    if not (spec.weights or needs_weights(spec)):
        return ""
    example = f", {BACKBONES[spec.kind].example}" if needs_weights(spec) else ""
    return f": the file of {spec.kind} {spec.config} that the run was made with{example}"


def _line(answer: dict[str, Any]) -> str:
    if "milliliters" in answer:
        return ", ".join(f"{name} {volume:.1f} ml" for name, volume in answer["milliliters"].items())
    if "risk" in answer:
        curve = (
            f", relapse-free at {answer['days'][-1]:.0f} days {answer['relapse_free'][-1]:.2f}"
            if "days" in answer
            else ""
        )
        return f"risk {answer['risk']:.3f}{curve}"
    if "boxes" in answer:
        return ", ".join(f"{box['structure']} {box['probability']:.2f}" for box in answer["boxes"]) or "nothing found"
    return ", ".join(f"{name} {p:.2f}" for name, p in answer["probabilities"].items())
