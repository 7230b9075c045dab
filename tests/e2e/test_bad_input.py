"""Bad input gets one sentence and exit code 2, and finished work stays: through the commands that a person types."""

import gzip
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from common.errors import FedgraftError
from common.store.bank import AdapterBank
from common.store.ledger import Ledger
from server.__main__ import main as server_main
from server.run.finish import verify_folder
from simulations import __main__ as simulations_command
from simulations import simulate as simulations_run
from tests.helpers.small import forget, save, write_cohort

VIEW = "{spacing_mm: [6,6,6], size: [16,16,16], window: [16,16,16], crop: center}"
SETTINGS = [
    "curriculum=smoke", "name=mine", "data=folder", "data.split.folds=3", "data.split.validation=0.34",
    *(f"steps.{step}.{option}" for step in ("tumour_ct", "tumour_ctpet") for option in (f"view={VIEW}", "rounds=1")),
]  # fmt: skip


@pytest.fixture
def quiet(monkeypatch):
    """Commands answer in this process and draw no pictures."""
    forget()
    with monkeypatch.context() as patch:
        without_processes(patch)
        yield


def without_processes(patch):
    patch.setattr("simulations.virtual.federate.worker_count", lambda runtime: 0)
    patch.setattr("simulations.comparison.overlays.overlays_of", lambda run, folder: [])
    patch.setattr(simulations_run, "verify_in_fresh_process", verify_here)


@pytest.fixture
def desk(tmp_path, monkeypatch, quiet):
    """An empty working folder with a cohort."""
    monkeypatch.chdir(tmp_path)
    return write_cohort(tmp_path / "cohort", {"CHUM": 6, "CHUP": 5})


def verify_here(path):
    found = verify_folder(path)
    ledger = Ledger(path / "ledger.jsonl")
    ledger.append("verified", {"changed_bits": found.changed_bits, "base_after": found.base_after})


def simulate(root, *overrides):
    return simulations_command.main(["run", *SETTINGS, f"data.root={root}", *overrides])


def said(capsys):
    """The sentences of the command on stderr, apart from the centers' own logs."""
    kinds = tuple(f"{kind.__name__}:" for kind in (FedgraftError, *FedgraftError.__subclasses__()))
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith(kinds)]


def ledger():
    return Ledger(Path("runs/mine/ledger.jsonl"))


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["curriculum=quickstrat"], "quickstrat"),
        (["steps.tumour_ct.rouds=3"], "rouds"),
        (["steps.tumour_ct.rounds=many"], "many"),
        (["backbone=tinny"], "tinny"),
    ],
)
def test_an_option_that_does_not_exist_is_named(capsys, overrides, sentence):
    assert server_main(["plan", *overrides]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"ConfigError: {overrides[0]}: ") and sentence in line


def test_every_broken_rule_is_told_at_once(capsys):
    rules = ["data.split.fold=9", "steps.tumour_ct.federation.quorum=2", "steps.tumour_ctpet.starts_from=nothing"]
    assert server_main(["plan", "data=folder", *rules]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert "broken rule: data.root is not set; set it to the folder of the images." in lines
    assert len(lines) == 4 and all(line.startswith("broken rule: ") for line in lines)


def test_a_missing_root(desk, capsys):
    assert simulate("nowhere") == 2
    [line] = said(capsys)
    assert line == "DataError: Data root nowhere does not exist; set data.root to the folder of the images."
    assert not Path("runs").exists()


def test_a_root_without_cases(desk, capsys):
    Path("empty/imagesTr").mkdir(parents=True)
    assert simulate("empty") == 2
    [line] = said(capsys)
    assert "No case was found under" in line and "data.root" in line


def test_a_center_without_cases(desk, capsys):
    assert simulate(desk, "steps.tumour_ct.centers=[CHUM,CHUV]") == 2
    [line] = said(capsys)
    assert "CHUV" in line and "CHUM, CHUP" in line
    assert not ledger().events()


def test_a_patient_twice(desk, capsys):
    for number in range(1, 5):
        image = desk / "imagesTr" / f"CHUM-00{number}__CT.nii.gz"
        shutil.copy(image, desk / "imagesTr" / f"CHUM_00{number}__CT.nii.gz")
    assert simulate(desk) == 2
    [line] = said(capsys)
    assert line.startswith("DataError: 4 patients have several files of one kind") and "CHUM-001" not in line


def truncated(path):
    path.write_bytes(path.read_bytes()[:-200])


def scrambled(path):
    path.write_bytes(gzip.compress(b"not an image at all" * 100))


def with_nan(path):
    save(path, np.full((16, 16, 16), np.nan, np.float32))


def elsewhere(path):
    data = np.asanyarray(nib.load(path).dataobj)
    save(path, data, shift_mm=5000.0)


def with_a_seven(path):
    data = np.asanyarray(nib.load(path).dataobj).copy()
    data[0, 0, 0] = 7
    save(path, data)


BROKEN = {
    "truncated CT": ("imagesTr/{}__CT.nii.gz", truncated, "corrupt or truncated"),
    "corrupt PET": ("imagesTr/{}__PT.nii.gz", scrambled, "corrupt or truncated"),
    "NaN in CT": ("imagesTr/{}__CT.nii.gz", with_nan, "NaN"),
    "PET elsewhere": ("imagesTr/{}__PT.nii.gz", elsewhere, "do not overlap"),
    "label value 7": ("labelsTr/{}.nii.gz", with_a_seven, "value 7"),
}


@pytest.mark.parametrize("trouble", BROKEN)
def test_an_unusable_case_stops_the_run_if_configured_so(desk, capsys, caplog, trouble):
    file, spoil, sentence = BROKEN[trouble]
    spoil(desk / file.format("CHUP-002"))
    step = "tumour_ctpet" if "PET" in trouble else "tumour_ct"
    assert simulate(desk, "data.skip_unreadable=false") == 2
    [line] = said(capsys)
    assert line.startswith(f"DataError: Step '{step}': CHUP cannot use all of their cases") and "CHUP-002" not in line
    assert "case=CHUP-002" in caplog.text and sentence in caplog.text
    done = ["tumour_ct"] if step == "tumour_ctpet" else []
    assert [event["step"] for event in ledger().events("step_finished")] == done


def test_by_default_unusable_cases_are_left_out_counted_and_named_on_site_only(desk, caplog):
    spoiled = []
    for number, (file, spoil, _) in enumerate(BROKEN.values(), start=1):
        center = "CHUM" if number % 2 else "CHUP"
        patient = f"{center}-{number:03d}"
        spoil(desk / file.format(patient))
        spoiled.append(patient)
    assert simulate(desk) == 0
    for patient in spoiled:
        assert f"case={patient} unreadable" in caplog.text
        assert patient not in Path("runs/mine/ledger.jsonl").read_text()
    [event] = ledger().events("round_finished", step="tumour_ctpet")
    trained = {center: (row["cases"], row["skipped"]) for center, row in event["train"].items()}
    registered = ledger().events("step_started", step="tumour_ctpet")[0]["counts"]
    assert {center: cases + skipped for center, (cases, skipped) in trained.items()} == {
        center: registered[center]["train"] for center in ("CHUM", "CHUP")
    }
    assert sum(skipped for _, skipped in trained.values()) > 0


@pytest.fixture(scope="module")
def finished_once(tmp_path_factory):
    """A working folder with a finished run."""
    place = tmp_path_factory.mktemp("finished")
    root = write_cohort(place / "cohort", {"CHUM": 6, "CHUP": 5})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        without_processes(patch)
        assert simulate(root) == 0
    return place


@pytest.fixture
def finished(finished_once, monkeypatch, quiet):
    """The same for every test: whatever goes wrong, ledger and bank must be there afterwards as before."""
    monkeypatch.chdir(finished_once)
    before = Path("runs/mine/ledger.jsonl").read_bytes(), bank_of("runs/mine")
    yield finished_once / "cohort"
    assert (Path("runs/mine/ledger.jsonl").read_bytes(), bank_of("runs/mine")) == before


def bank_of(run):
    return {path: path.read_bytes() for path in sorted(Path(run, "bank").rglob("*")) if path.is_file()}


def test_another_configuration_in_the_same_folder(finished, capsys):
    assert simulate(finished, "steps.tumour_ct.training.learning_rate=0.5") == 2
    [line] = said(capsys)
    assert "holds a run with another configuration" in line and "name=" in line


def test_a_window_that_is_no_whole_number_of_patches_stops_before_any_message(desk, capsys):
    assert simulate(desk, "name=misfit", "steps.tumour_ct.view.window=[16,16,12]") == 2
    [line] = said(capsys)
    assert "Step 'tumour_ct': view.window [16, 16, 12]" in line and "(tiny mini) [8, 8, 8]" in line
    assert not Path("runs/misfit/ledger.jsonl").exists()


def test_an_adapter_for_another_backbone(finished, capsys, monkeypatch):
    """The same configuration, but the weights behind it are no longer those that the adapters were made for."""
    from common.backbones.tiny import TinyBackbone

    monkeypatch.setattr("server.coordinator.load_backbone", lambda spec: TinyBackbone(seed=5))
    assert simulate(finished) == 2
    [line] = said(capsys)
    assert "The run began with frozen model" in line and "use the weights that it began with" in line


def test_a_damaged_ledger_is_told_apart_from_a_torn_one(finished, capsys):
    path = Path("runs/mine/ledger.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"round":1', b'"round":2', 1))
    assert simulate(finished) == 2
    [line] = said(capsys)
    assert line.startswith("LedgerError:") and "breaks the hash chain" in line
    path.write_bytes(whole)
    assert simulate(finished) == 0 and Ledger(path).events("run_resumed")
    path.write_bytes(whole)


def test_a_lost_adapter(finished, capsys):
    [state, *_] = sorted(Path("runs/mine/bank").rglob("state.safetensors"))
    content = state.read_bytes()
    state.unlink()
    assert server_main(["verify", "runs/mine"]) == 2
    [line] = said(capsys)
    assert line.startswith("BankError:") and "restore it from a backup" in line
    state.write_bytes(content)
    assert AdapterBank(Path("runs/mine/bank")).heads().keys() == {"tumour_ct", "tumour_ctpet"}


def test_a_folder_that_is_no_run(desk, capsys):
    for command in ("verify", "report"):
        assert server_main([command, "cohort"]) == 2
        [line] = said(capsys)
        assert line.startswith("LedgerError:")
