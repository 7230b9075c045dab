"""A CaseSet holds the usable cases of one step and hands them out as batches, the same way each time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from client.data.case import Case
from client.data.dataset import CaseSet, usable
from client.data.images import nifti
from client.data.images.cache import VolumeCache
from client.data.layouts import find_cases
from common.config.step import Step
from common.config.task import ClassificationTask, GroundingTask, PrognosisTask, SegmentationTask
from common.config.view import View
from common.data.batch import CT, EHR, PET
from common.data.findings import FINDINGS
from common.errors import ConfigError, DataError, UnknownName

VIEW = View(size=[8, 8, 8], window=[8, 8, 8], crop="center")
PATIENTS = ("CHUM-001", "CHUM-002", "CHUM-003", "HMR-001", "HMR-002")


def words(texts: list[str]) -> Tensor:
    """A toy tokenizer: one number per word length, padded with 0."""
    rows = [[len(word) for word in text.split()] for text in texts]
    width = max(map(len, rows))
    return torch.tensor([row + [0] * (width - len(row)) for row in rows], dtype=torch.int64)


def step(task, *modalities: str, view: View = VIEW) -> Step:
    return Step(name="s", task=task, modalities=list(modalities), view=view)


@pytest.fixture
def cases(cohort):
    return find_cases(cohort(*PATIENTS))


def test_segmentation_batches(cases):
    cases[1].images[PET].unlink()
    cases[1] = replace(cases[1], images={CT: cases[1].images[CT]})
    held = CaseSet(cases, step(SegmentationTask(), CT, PET))
    first, second = held.all(3)
    assert (len(held), len(first), len(second), held.skipped) == (5, 3, 2, 0)
    assert first.inputs[CT].shape == first.inputs[PET].shape == first.target["mask"].shape == (3, 1, 8, 8, 8)
    assert first.inputs[CT].dtype == torch.float32 and first.target["mask"].dtype == torch.uint8
    assert first.present[PET].tolist() == [True, False, True] and first.present[CT].all()
    assert (first.inputs[PET][1] == 0).all() and EHR not in first.inputs
    assert first.target["outside_mm3"].shape == (3, 2) and first.target["voxel_mm3"].tolist() == [27.0] * 3
    total = (first.target["mask"][0] == 2).sum() * 27 + first.target["outside_mm3"][0, 1]
    assert total == 8 * 27


def test_prognosis_batches_carry_reports_and_outcomes(cases):
    cases[2] = replace(cases[2], record={})
    cases[3] = replace(cases[3], days=None, event=None)
    held = CaseSet(cases, step(PrognosisTask(), CT, EHR), tokenizer=words)
    (batch,) = held.all(8)
    assert [c.patient for c in held.cases] == ["CHUM-001", "CHUM-002", "CHUM-003", "HMR-002"]
    assert batch.target["days"].tolist() == [200.0, 100.0, 200.0, 200.0]
    assert batch.target["event"].tolist() == [0.0, 1.0, 0.0, 0.0] and batch.target["event"].dtype == torch.float32
    assert batch.present[EHR].tolist() == [True, True, False, True]
    assert batch.inputs[EHR].dtype == torch.int64 and (batch.inputs[EHR][2] == 0).all()
    assert set(batch.inputs) == {CT, EHR}


def test_a_prognosis_step_does_not_open_labels(cases):
    for case in cases:
        case.label.write_bytes(b"broken")
    assert len(CaseSet(cases, step(PrognosisTask(), CT))) == 5
    with pytest.raises(DataError, match="5 cases: The label file"):
        CaseSet(cases, step(SegmentationTask(), CT))


def test_text_alone_needs_no_image(cases, monkeypatch):
    monkeypatch.setattr(nifti, "_decode", lambda path: pytest.fail("opened an image"))
    (batch,) = CaseSet(cases, step(PrognosisTask(), EHR), tokenizer=words).all(8)
    assert set(batch.inputs) == {EHR} and len(batch) == 5


def test_case_without_ct_joins_by_its_report(cases):
    cases[0] = replace(cases[0], images={})
    held = CaseSet(cases, step(PrognosisTask(), CT, EHR), tokenizer=words)
    (batch,) = held.batches(8, generator=torch.Generator().manual_seed(0))
    assert batch.inputs[CT].shape == (5, 1, 8, 8, 8) and batch.present[CT].sum() == 4
    assert (batch.inputs[CT][~batch.present[CT]] == 0).all()


def test_classification_picks_its_classes(cases):
    findings = tuple(i % 3 - 1 for i in range(18))
    known = [replace(case, findings=findings, record={}) for case in cases[:2]]
    (batch,) = CaseSet([*known, *cases[2:]], step(ClassificationTask(classes=["Emphysema", "Atelectasis"]), CT)).all(8)
    assert batch.target["labels"].tolist() == [[float(findings[7]), float(findings[8])]] * 2
    (batch,) = CaseSet(known, step(ClassificationTask(), CT)).all(8)
    assert batch.target["labels"].shape == (2, len(FINDINGS)) and batch.target["labels"].min() == -1
    with pytest.raises(UnknownName, match="Emphysema"):
        CaseSet(known, step(ClassificationTask(classes=["Emphysima"]), CT))


def test_shuffling_is_a_function_of_the_generator(cases):
    held = CaseSet(cases, step(SegmentationTask(), CT))

    def sums(seed: int) -> list[float]:
        generator = torch.Generator().manual_seed(seed)
        return [float(x.sum()) for b in held.batches(2, generator=generator) for x in b.inputs[CT]]

    in_order = [float(x.sum()) for b in held.all(2) for x in b.inputs[CT]]
    assert sums(3) == sums(3) and sorted(sums(3)) == sorted(in_order)
    assert len({tuple(sums(seed)) for seed in range(5)}) > 1


def test_large_volumes_train_on_windows_and_evaluate_whole(cases, disk):
    disk.save(cases[4].images[CT], disk.ct((14, 10, 9)))
    view = View(size=None, window=[8, 8, 8], crop="none")
    held = CaseSet(cases, step(SegmentationTask(), CT, view=view))
    for batch in held.batches(2, generator=torch.Generator().manual_seed(0)):
        assert batch.inputs[CT].shape[1:] == batch.target["mask"].shape[1:] == (1, 8, 8, 8)
    shapes = [tuple(batch.inputs[CT].shape) for batch in held.all(3)]
    assert shapes == [(3, 1, 9, 10, 12), (1, 1, 9, 10, 12), (1, 1, 9, 10, 14)]


def test_usable_asks_for_target_and_for_something_to_see(cases):
    case = cases[0]
    assert usable(case, step(SegmentationTask(), CT)) and usable(case, step(PrognosisTask(), EHR))
    assert not usable(replace(case, label=None), step(SegmentationTask(), CT))
    assert not usable(replace(case, days=None, event=None), step(PrognosisTask(), CT))
    assert not usable(replace(case, record={}), step(PrognosisTask(), EHR))
    assert not usable(replace(case, images={}), step(PrognosisTask(), CT))
    assert not usable(case, step(ClassificationTask(), CT))


def test_impossible_requests_are_refused(cases):
    with pytest.raises(ConfigError, match="tokenizer"):
        CaseSet(cases, step(PrognosisTask(), CT, EHR))
    with pytest.raises(ConfigError, match="window"):
        CaseSet(cases, step(SegmentationTask(), CT, view=View(size=[8, 8, 8])))


def test_rounds_decode_nothing_and_unreadable_cases_are_counted(cases, tmp_path, monkeypatch):
    cases[0].images[CT].write_bytes(b"broken")
    first = CaseSet(cases, step(SegmentationTask(), CT), cache=VolumeCache(tmp_path / "cache"))
    assert (len(first), first.skipped) == (4, 1)
    opened = []
    real = nifti._decode
    monkeypatch.setattr(nifti, "_decode", lambda path: (opened.append(path), real(path))[1])
    second = CaseSet(cases, step(SegmentationTask(), CT), cache=VolumeCache(tmp_path / "cache"))
    assert {path.name for path in opened} == {"CHUM-001__CT.nii.gz", "CHUM-001.nii.gz"}  # the unreadable case only
    assert all(torch.equal(a.inputs[CT], b.inputs[CT]) for a, b in zip(first.all(2), second.all(2), strict=True))
    with pytest.raises(DataError, match="1 case: The CT file"):
        CaseSet(cases, step(SegmentationTask(), CT), skip_unreadable=False)


def test_an_empty_part_is_an_empty_set(cases):
    held = CaseSet([], step(PrognosisTask(), CT, EHR), tokenizer=words)
    assert len(held) == 0 and list(held.all(4)) == []
    assert list(held.batches(4, generator=torch.Generator())) == []


STAGED = ClassificationTask(classes=["T1", "T2", "T3", "T4"], form="ordinal", target="t_stage")
HPV = ClassificationTask(classes=["hpv"], form="binary", target="hpv")
RECORD = {
    "age": 61.0, "gender": "male", "hpv": 1.0, "t_stage": "t3", "n_stage": "n1", "m_stage": "m0", "chemotherapy": 1.0,
    "surgery": 0.0, "treatment": "chemoradiotherapy", "tobacco": 1.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("task", "label", "told"),
    [(HPV, 1.0, {"t3", "n1"}), (STAGED, 2.0, {"hpv"}), (PrognosisTask(), None, {"hpv", "t3", "chemoradiotherapy"})],
)
def test_a_target_and_its_proxies_reach_neither_the_record_nor_the_report(task, label, told):
    seen: list[str] = []
    case = Case("CHUM-001", "CHUM", {}, None, RECORD, 400.0, 1, None, None)
    step = Step(name="s", task=task, modalities=[EHR])
    cases = CaseSet([case], step, tokenizer=lambda texts: words(seen.extend(texts) or texts))
    [text] = seen
    assert told <= set(text.split()) and "tobacco" in text
    hidden = {HPV.target: ("hpv", "chemo", "surgery"), STAGED.target: ("t3", "n1", "m0", "chemo", "surgery")}
    assert not any(word in text for word in hidden.get(getattr(task, "target", ""), ()))
    target = next(cases.all(1)).target
    if label is not None:
        assert target["labels"].tolist() == [[label]]
    assert not any(word in text for word in ("relapse", "400", "chum"))


def test_an_unknown_stage_is_no_label_and_an_unknown_status_is_no_case():
    case = Case("CHUM-001", "CHUM", {}, None, {"age": 50.0, "t_stage": "t0"}, None, None, None, None)
    assert not usable(case, Step(name="s", task=STAGED, modalities=[EHR]))
    assert not usable(case, Step(name="s", task=HPV, modalities=[EHR]))


@pytest.mark.parametrize("task", [SegmentationTask, GroundingTask])
def test_a_center_that_outlines_some_structures_need_not_name_the_others(cases, task):
    """GTVn is 2 in HECKTOR's labels, first of what this center names, and second of the step's structures."""
    everything = CaseSet(cases, step(SegmentationTask(), CT)).collate(range(5)).target["mask"]
    named = [replace(case, structures={"GTVn": (2,), "elsewhere": (1,)}) for case in cases]
    asked = task(outlined={"CHUM": ["GTVn"], "HMR": ["GTVn"]})
    target = CaseSet(named, step(asked, CT)).collate(range(5)).target
    assert target["known"].tolist() == [[0.0, 1.0]] * 5
    if task is SegmentationTask:
        assert torch.equal(target["mask"], everything.masked_fill(everything == 1, 0))
        assert (target["outside_mm3"][:, 0] == 0).all()
    else:
        assert {*target["boxes"][..., 0].unique().tolist()} <= {-1.0, 1.0}
    with pytest.raises(DataError, match="does not name"):
        CaseSet(named, step(task(), CT), skip_unreadable=False)


def test_two_centers_whose_codes_have_one_checksum_share_no_risk_set(cases):
    plain = step(PrognosisTask(), CT)
    held = CaseSet([replace(case, center=code) for case, code in zip(cases, "ABABA", strict=True)], plain)
    assert len({int(batch) for batch in next(iter(held.all(5))).target["stratum"]}) == 2
    alike = [replace(case, center=code) for case, code in zip(cases[:2], ("plumless", "buckeroo"), strict=True)]
    with pytest.raises(ConfigError, match="'buckeroo' and 'plumless' have codes with one checksum"):
        CaseSet(alike, plain)
