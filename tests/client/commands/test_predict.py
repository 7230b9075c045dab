"""predict: masks lie on the CT's own grid, and a bank alone is enough."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from client.__main__ import main
from client.commands import predict as command
from client.commands.predict import frozen_candidates
from client.data.dataset import CaseSet
from client.data.layouts import find_cases
from client.training.prediction import mask_on
from common.backbones import backbone_digest, load_backbone
from common.config.load import compose_run, run_to_yaml
from common.config.run import BackboneSpec
from common.config.step import Step
from common.config.task import ClassificationTask, MaskedTask, PrognosisTask
from common.model.adapted import AdaptedModel
from common.store.bank import AdapterBank
from common.store.ledger import Ledger
from server.run.export import export
from simulations.comparison.patients import observe, open_centers
from simulations.comparison.recorded.exact_arm import exact_step
from tests.helpers.small import VIEW, adapters, federate, small_run, write_centers

BACKBONE = load_backbone(compose_run(["backbone=tiny"]).backbone)
HPV = ClassificationTask(classes=["hpv"], form="binary", target="hpv")
T_STAGE = ClassificationTask(classes=["T1", "T2", "T3", "T4"], form="ordinal", target="t_stage")


@pytest.fixture(scope="module")
def bank(tmp_path_factory, small_root):
    folder = tmp_path_factory.mktemp("bank")
    files = write_centers(folder / "centers", small_root, ["CHUM", "CHUP"])
    steps = ["tumour_ct", "tumour_ctpet", "relapse_ct"]
    run = small_run("with_controls=true", centers=["CHUM", "CHUP"], rounds=1, steps=steps)
    leader = federate(run, folder / "run", files)
    leader.folder.config.write_text(run_to_yaml(run))
    assert set(adapters(leader)) == set(steps)
    return leader.folder


def predict(bank, out, *words):
    return main(["predict", "--bank", str(bank), "--out", str(out), *words])


def model_of(step: Step) -> AdaptedModel:
    """A step's model as it starts."""
    return AdaptedModel(BACKBONE, step, seed=1)


def bank_of(folder: Path, steps: Iterable[Step]) -> Path:
    """A bank of steps as they start, finished in this order."""
    for step in steps:
        AdapterBank(folder / "bank").commit(step, model_of(step).state(), base=backbone_digest(BACKBONE))
    return folder


def imaged(name: str, task: ClassificationTask | PrognosisTask) -> Step:
    """A step that answers from the CT alone."""
    return replace(small_run("with_controls=true", steps=["relapse_ct"]).steps["relapse_ct"], name=name, task=task)


def predicted(out: Path) -> dict[str, dict]:
    """By lineage, what was said of the only case."""
    [found] = json.loads((out / "predictions.json").read_text()).values()
    return found


def test_every_case_of_a_folder_gets_a_mask_on_its_own_ct(tmp_path, bank, small_root):
    assert predict(bank.path, tmp_path, "--folder", str(small_root)) == 0
    found = json.loads((tmp_path / "predictions.json").read_text())
    assert len(found) == 22 and set(found["CHUM-001"]) == {"tumour_ctpet", "relapse_ct"}
    mask = nib.load(tmp_path / found["CHUM-001"]["tumour_ctpet"]["mask"])
    ct = nib.load(small_root / "imagesTr" / "CHUM-001__CT.nii.gz")
    assert mask.shape == ct.shape and np.array_equal(mask.affine, ct.affine) and mask.get_data_dtype() == np.uint8
    volumes = found["CHUM-001"]["tumour_ctpet"]["milliliters"]
    counts = np.bincount(np.asarray(mask.dataobj).ravel(), minlength=3) * 6.0**3 / 1000
    assert volumes == {"GTVp": pytest.approx(counts[1], abs=1e-3), "GTVn": pytest.approx(counts[2], abs=1e-3)}
    relapse = found["CHUM-001"]["relapse_ct"]
    assert 0 <= relapse["risk"] <= 1 and np.all(np.diff(relapse["relapse_free"]) <= 0)
    assert relapse["risk"] == pytest.approx(1 - np.mean(relapse["relapse_free"])) and relapse["days"][-1] == 1825


def test_a_case_without_pet_gets_the_head_that_needs_none(tmp_path, bank, small_root):
    ct = small_root / "imagesTr" / "CHUM-001__CT.nii.gz"
    assert predict(bank.bank, tmp_path, "--ct", str(ct)) == 0
    assert set(json.loads((tmp_path / "predictions.json").read_text())["CHUM-001"]) == {"tumour_ct", "relapse_ct"}


def test_every_question_of_a_kind_is_answered_by_the_latest_step(tmp_path, small_root):
    steps = [
        imaged("hpv", HPV),
        imaged("stage", T_STAGE),
        imaged("restage", T_STAGE),
        imaged("relapse", PrognosisTask()),
    ]
    ct = small_root / "imagesTr" / "CHUM-001__CT.nii.gz"
    assert predict(bank_of(tmp_path, steps), tmp_path / "out", "--ct", str(ct)) == 0
    found = predicted(tmp_path / "out")
    assert set(found) == {"hpv", "restage", "relapse"}
    [case] = [case for case in find_cases(small_root) if case.patient == "CHUM-001"]
    [batch] = CaseSet([case], steps[0]).all(1)
    for step in (steps[0], steps[2]):
        model = model_of(step)
        with torch.no_grad():
            [expected] = model.task.probabilities(model(batch.inputs, batch.present)).tolist()
        assert found[step.name]["probabilities"] == dict(zip(step.task.classes, expected, strict=True))


def test_a_head_that_draws_boxes_is_answered_with_its_boxes(tmp_path, small_root, capsys):
    step = compose_run(["curriculum=grounding", "backbone=tiny", "name=boxes"]).steps["grounding"]
    step.view = replace(VIEW)
    ct = str(small_root / "imagesTr" / "CHUM-001__CT.nii.gz")
    assert predict(bank_of(tmp_path, [step]), tmp_path / "out", "--ct", ct) == 0
    said, told = predicted(tmp_path / "out")["grounding"], capsys.readouterr().out
    line = ", ".join(f"{box['structure']} {box['probability']:.2f}" for box in said["boxes"]) or "nothing found"
    assert f"CHUM-001 grounding: {line}; never scored: " in told and said["task"] == "grounding"
    assert command._line({"boxes": [{"structure": "GTVp", "probability": 0.914}]}) == "GTVp 0.91"
    assert command._line({"boxes": []}) == "nothing found"


def test_a_stage_of_self_supervised_learning_is_no_answer_and_stops_none(tmp_path, small_root):
    folder = bank_of(tmp_path, [imaged("hpv", HPV)])
    stage = replace(imaged("stage", HPV), task=MaskedTask(sources=["CT"]))
    AdapterBank(folder / "bank").commit(stage, {"decoder/weight": torch.ones(2)}, base=backbone_digest(BACKBONE))
    assert predict(folder, tmp_path / "out", "--ct", str(small_root / "imagesTr" / "CHUM-001__CT.nii.gz")) == 0
    assert set(predicted(tmp_path / "out")) == {"hpv"}


def test_answers_stay_beside_their_masks_where_predicting_is_stopped(tmp_path, bank, small_root, monkeypatch):
    answer, seen = command._answer, []

    def stopped(case, *rest):
        seen.append(case.patient)
        if len(seen) == 2:
            raise OSError(28, "No space left on device", str(tmp_path))
        answer(case, *rest)

    monkeypatch.setattr(command, "_answer", stopped)
    assert predict(bank.path, tmp_path, "--folder", str(small_root), "--lineage", "tumour_ct") == 2
    [(patient, said)] = json.loads((tmp_path / "predictions.json").read_text()).items()
    assert patient == seen[0] and (tmp_path / said["tumour_ct"]["mask"]).is_file()


def test_a_step_with_modes_answers_from_ct_alone_as_if_pet_had_not_been_acquired(tmp_path, small_root):
    step = replace(compose_run(["curriculum=pemma", "backbone=tiny"]).steps["mda"], view=VIEW)
    bank_of(tmp_path, [step])
    images = {name: str(small_root / "imagesTr" / f"CHUM-001__{name}.nii.gz") for name in ("CT", "PT")}
    assert predict(tmp_path, tmp_path / "alone", "--ct", images["CT"]) == 0
    assert predict(tmp_path, tmp_path / "both", "--ct", images["CT"], "--pet", images["PT"]) == 0
    [case] = [case for case in find_cases(small_root) if case.patient == "CHUM-001"]
    [batch] = CaseSet([case], step).all(1)
    model = model_of(step)
    for mode, out in (("CT", "alone"), ("CT+PET", "both")):
        shown = batch.in_mode(mode)
        with torch.no_grad():
            expected = model(shown.inputs, shown.present)[0].argmax(dim=0).numpy().transpose(2, 1, 0)
        found = nib.load(tmp_path / out / predicted(tmp_path / out)["mda"]["mask"])
        assert np.array_equal(np.asarray(found.dataobj), expected)


def test_an_exactly_fitted_head_answers_from_ct_and_record(tmp_path, small_root):
    files = write_centers(tmp_path / "centers", small_root, ["CHUM", "CHUP", "MDA"])
    run = small_run(centers=["CHUM", "CHUP", "MDA"], rounds=8, steps=["relapse"])
    run.steps["relapse"] = exact_step(replace(run.steps["relapse"], modalities=["CT", "EHR"]))
    leader = federate(run, tmp_path / "run", files)
    leader.folder.config.write_text(run_to_yaml(run))
    assert predict(leader.folder.path, tmp_path, "--folder", str(small_root)) == 0
    said = json.loads((tmp_path / "predictions.json").read_text())
    [event] = leader.ledger.events("step_finished")
    state, centers = leader.bank.get(event["key"]), open_centers(files)
    tested = observe(run, run.steps["relapse"], state, centers, base=leader.base)
    assert len(tested) >= 3
    for one in tested:
        assert said[one.patient]["relapse"]["risk"] == pytest.approx(float(one.observation["risk"]), abs=1e-5)


def test_a_head_that_needs_pet_is_not_asked_without(tmp_path, small_root, capsys):
    run = small_run(steps=["tumour_ctpet"])
    ct = str(small_root / "imagesTr" / "CHUM-001__CT.nii.gz")
    assert predict(bank_of(tmp_path, run.steps.values()), tmp_path / "out", "--ct", ct) == 2
    sentence = "learned nothing for head_neck from CT; it has segmentation on head_neck from CT+PET (tumour_ctpet)."
    assert sentence in capsys.readouterr().err


def test_an_exported_folder_is_checked_before_it_is_used(tmp_path, bank, small_root, capsys):
    manifest = export(bank, tmp_path / "adapters", key=tmp_path / "key")
    ct = str(small_root / "imagesTr" / "CHUM-001__CT.nii.gz")
    assert predict(tmp_path / "adapters", tmp_path / "out", "--ct", ct) == 0
    assert predict(tmp_path / "adapters", tmp_path / "out", "--ct", ct, "--signer", "0" * 64) == 2
    assert "not by 0000" in capsys.readouterr().err
    next((manifest.parent / "bank").rglob("state.safetensors")).write_bytes(b"")
    assert predict(tmp_path / "adapters", tmp_path / "out", "--ct", ct) == 2
    assert "was changed after it was signed" in capsys.readouterr().err


def test_every_answer_carries_the_adapters_test_score(tmp_path, bank, small_root, capsys):
    """From a run's own bank and from an export, on the console and in predictions.json."""
    export(bank, tmp_path / "adapters", key=tmp_path / "key")
    ct = str(small_root / "imagesTr" / "CHUM-001__CT.nii.gz")
    for place in (bank.path, tmp_path / "adapters"):
        assert predict(place, tmp_path / "out", "--ct", ct, "--lineage", "tumour_ct") == 0
        said = predicted(tmp_path / "out")["tumour_ct"]
        [event] = [e for e in Ledger(bank.ledger).events("step_finished") if e["step"] == "tumour_ct"]
        metric = event["primary"]["tumour_ct"]
        [row] = [
            r
            for r in event["scores"]
            if (r["task"], r["center"], r["metric"], r["step"]) == ("tumour_ct", "pooled", metric, "tumour_ct")
        ]
        assert said["tested"]["value"] == row["value"] and said["tested"]["n"] == row["n"] > 0
        assert said["tested"]["centers"] == ["CHUM", "CHUP"] and said["tested"]["date"] == event["time"][:10]
        assert f" on {row['n']} cases of CHUM, CHUP (CT), " in said["notes"][0]
        assert said["notes"][0] in capsys.readouterr().out
    assert said["notes"][0] in (tmp_path / "adapters" / "README.md").read_text()


def test_an_adapter_that_nobody_tested_or_calibrated_says_so(tmp_path, small_root, capsys):
    ct = str(small_root / "imagesTr" / "CHUM-001__CT.nii.gz")
    steps = [imaged("hpv", HPV), imaged("relapse", PrognosisTask(loss="cox"))]
    assert predict(bank_of(tmp_path, steps), tmp_path / "out", "--ct", ct) == 0
    said, told = predicted(tmp_path / "out"), capsys.readouterr().out
    assert said["hpv"]["tested"] is None and said["hpv"]["notes"][0].startswith("never scored: ")
    assert "uncalibrated" in said["hpv"]["notes"][1] and "no baseline hazard" in said["relapse"]["notes"][1]
    assert told.count("never scored: nobody has tested this adapter on patients; ") == 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--ct", "a.nii.gz", "--folder", "b"], "Name one CT with --ct"),
        (["--ct", "a.nii.gz", "--region", "chest"], "The bank learned nothing for chest from CT; it has"),
        (["--ct", "a.nii.gz", "--lineage", "hpv"], "Nothing was ever learned for 'hpv'. Learned: relapse_ct"),
        (["--ct", "a.nii.gz"], "The CT file is missing, corrupt or truncated"),
        (["--ct", "a.nii.gz", "--signer", "ab"], "is not signed"),
    ],
)
def test_what_cannot_be_predicted_is_said(tmp_path, bank, words, sentence, capsys):
    assert predict(bank.path, tmp_path, *words) == 2
    assert sentence in capsys.readouterr().err


def test_a_folder_that_is_no_bank_is_named(tmp_path, capsys):
    assert predict(tmp_path, tmp_path, "--ct", "a.nii.gz") == 2 and "is no adapter bank" in capsys.readouterr().err


def test_an_unknown_frozen_model_is_named(tmp_path, small_root, capsys):
    run = small_run(steps=["tumour_ct"])
    state = AdaptedModel(load_backbone(run.backbone), run.steps["tumour_ct"], seed=1).state()
    AdapterBank(tmp_path / "bank").commit(run.steps["tumour_ct"], state, base="f" * 64)
    ct = str(small_root / "imagesTr" / "CHUM-001__CT.nii.gz")
    assert predict(tmp_path, tmp_path, "--ct", ct) == 2
    assert "frozen model ffffffffffff, which is not mini or tiny; name its weights" in capsys.readouterr().err


def test_weights_of_any_frozen_model_are_taken_from_the_command_line(tmp_path, small_root, capsys):
    spec = BackboneSpec(kind="unetr", config="small", image_size=[16, 16, 16], weights=str(tmp_path / "theirs.pt"))
    for seed, name in enumerate(("theirs.pt", "others.pt")):
        drawn = load_backbone(replace(spec, weights=None, random_seed=seed))
        torch.save(drawn.state_dict(), tmp_path / name)
    run = small_run(centers=["CHUM"], rounds=1, steps=["tumour_ct"])
    run.backbone = spec
    files = write_centers(tmp_path / "centers", small_root, ["CHUM"])
    folder = federate(run, tmp_path / "run", files).folder
    folder.config.write_text(run_to_yaml(run))
    export(folder, tmp_path / "adapters", key=tmp_path / "key")
    case = ["--ct", str(small_root / "imagesTr" / "CHUM-001__CT.nii.gz")]
    assert predict(folder.path, tmp_path / "own", *case) == 0  # where the run was made, its weights are known

    (tmp_path / "theirs.pt").rename(tmp_path / "mine.pt")
    for bank in (folder.path, tmp_path / "adapters"):
        capsys.readouterr()
        assert predict(bank, tmp_path / "none", *case) == 2
        asked = "with --weights: the file of unetr small that the run was made with, a MONAI UNETR checkpoint."
        assert f"which is not mini or tiny; name its weights {asked}" in capsys.readouterr().err
        assert predict(bank, tmp_path / "others", *case, "--weights", str(tmp_path / "others.pt")) == 2
        assert "others.pt; name its weights with --weights" in capsys.readouterr().err
        assert predict(bank, tmp_path / "mine", *case, "--weights", str(tmp_path / "mine.pt")) == 0
        assert predicted(tmp_path / "mine") == predicted(tmp_path / "own")


@pytest.mark.parametrize(
    "named",
    [
        BackboneSpec(config="released", projection=False, weights="/theirs.pt", text_folder="/theirs", digest="ab"),
        BackboneSpec(config="released", text="ngrams", weights="/theirs.pt"),
        BackboneSpec(kind="swin_unetr", config="base", feature_size=24, weights="/theirs.pt"),
    ],
)
def test_given_files_replace_those_of_the_frozen_model_that_the_bank_names(named):
    shipped = [compose_run([f"backbone={name}"]).backbone for name in ("mini", "tiny")]
    assert frozen_candidates(named) == shipped
    assert frozen_candidates(named, weights=Path("mine.pt")) == [replace(named, weights="mine.pt")]
    given = frozen_candidates(named, weights=Path("mine.pt"), text_folder=Path("words"))
    assert given == [replace(named, weights="mine.pt", text_folder="words")]


def test_a_bank_that_names_no_frozen_model_takes_weights_of_the_released_one():
    found = frozen_candidates(None, weights=Path("mine.pt"))
    assert found == [BackboneSpec(config="released", weights="mine.pt")]


def test_an_identity_grid_gives_the_labels_back(tmp_path):
    labels = torch.randint(0, 3, (5, 6, 7), generator=torch.Generator().manual_seed(0))  # (z, y, x)
    probabilities = torch.nn.functional.one_hot(labels, 3).permute(3, 0, 1, 2).float().numpy()
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    nib.save(nib.Nifti1Image(np.zeros((7, 6, 5), np.int16), affine), tmp_path / "ct.nii")
    mask, voxel_ml = mask_on(probabilities, affine, tmp_path / "ct.nii")
    assert np.array_equal(mask, labels.numpy().transpose(2, 1, 0)) and voxel_ml == pytest.approx(0.024)


def test_a_ct_in_microns_gets_the_same_mask_in_mm(tmp_path, bank, small_root):
    source = nib.load(small_root / "imagesTr" / "CHUM-001__CT.nii.gz")
    stretched = nib.Nifti1Image(np.asarray(source.dataobj), source.affine @ np.diag([1e3, 1e3, 1e3, 1]))
    stretched.header.set_xyzt_units("micron")
    stretched.affine[:3, 3] *= 1e3
    stretched.set_sform(stretched.affine, code=1)
    nib.save(stretched, tmp_path / "CHUM-001__CT.nii.gz")
    for out, ct in (("mm", source.get_filename()), ("microns", tmp_path / "CHUM-001__CT.nii.gz")):
        assert predict(bank.path, tmp_path / out, "--ct", str(ct), "--lineage", "tumour_ct") == 0
    one, two = (nib.load(tmp_path / out / "CHUM-001__tumour_ct.nii.gz") for out in ("mm", "microns"))
    assert np.array_equal(one.dataobj, two.dataobj) and two.affine == pytest.approx(one.affine, rel=1e-6)
    assert (
        predicted(tmp_path / "mm")["tumour_ct"]["milliliters"]
        == predicted(tmp_path / "microns")["tumour_ct"]["milliliters"]
    )


def test_a_flipped_ct_that_reaches_beyond_the_grid_gets_its_mask_in_place(tmp_path):
    """The grid lies inside the CT, whose first axis runs to the left: the mask has the file's own order."""
    probabilities = np.zeros((2, 4, 4, 4), np.float32)
    probabilities[0] = 1
    probabilities[:, 1, 2, 3] = (0, 1)  # x 3, y 2, z 1 of the grid
    grid = np.eye(4)
    grid[:3, 3] = (10, 10, 10)  # so that voxel lies at (13, 12, 11) mm
    flipped = np.array([[-1.0, 0, 0, 29], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(np.zeros((30, 28, 26), np.int16), flipped), tmp_path / "ct.nii")
    mask, _ = mask_on(probabilities, grid, tmp_path / "ct.nii")
    assert np.argwhere(mask).tolist() == [[29 - 13, 12, 11]]


def test_a_ct_that_the_grid_never_touches_is_background(tmp_path):
    far = np.eye(4)
    far[:3, 3] = 500
    nib.save(nib.Nifti1Image(np.zeros((5, 5, 5), np.int16), np.eye(4)), tmp_path / "ct.nii")
    mask, _ = mask_on(np.stack([np.zeros((4, 4, 4)), np.ones((4, 4, 4))]).astype(np.float32), far, tmp_path / "ct.nii")
    assert mask.shape == (5, 5, 5) and not mask.any()
