"""doctor: planted faults, each found with its severity and area, all at once; and nothing found where nothing is."""

from __future__ import annotations

import gzip
import http.server
import json
import select
import shutil
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from client.__main__ import main
from client.center.config import CenterConfig
from client.commands.doctor import diagnose
from client.data.images.nifti import read_volume
from client.data.layouts import find_cases
from client.doctor import machine, network
from client.doctor.cohort import auroc
from client.doctor.finding import Finding, gathered
from client.doctor.headers import gzip_name, identifying_fields
from client.doctor.images import examine, uptake_outside
from client.doctor.need import check_need
from client.node.keys import make_keys
from client.policy import Policy
from tests.helpers.layouts import in_brats, in_hecktor, in_nnunet
from tests.helpers.small import save, write_cohort


@pytest.fixture
def root(tmp_path):
    """Six patients with air around them, so that nothing is odd until a test makes it so."""
    root = write_cohort(tmp_path / "root", {"CHUM": 6})
    for path in sorted((root / "imagesTr").glob("*")):
        image = nib.load(path)
        data = np.asarray(image.dataobj).copy()
        edge = np.ones(data.shape, dtype=bool)
        edge[2:-2, 2:-2, 2:-2] = False
        data[edge] = -1000 if "__CT" in path.name else 0.0
        save(path, data)
    return root


def center(root, **changes):
    vault = root.parent / "vault"
    return CenterConfig("CHUM", str(root), cache=str(root.parent / "cache"), vault=str(vault), **changes)


def said(root, **changes):
    """(severity, area) -> sentences and how many cases."""
    _, found = diagnose(center(root, **changes))
    return {(f.severity, f.area, f.what): f.cases for f in found}


def has(found, severity, area, words, cases=None):
    hits = [c for (s, a, what), c in found.items() if (s, a) == (severity, area) and words in what]
    return bool(hits) and (cases is None or set(hits[0]) == set(cases))


def image(root, patient, kind):
    return root / ("imagesTr" if kind else "labelsTr") / f"{patient}{kind}.nii.gz"


def change(root, patient, kind, how):
    path = image(root, patient, kind)
    data = np.asarray(nib.load(path).dataobj).copy()
    save(path, how(data))


def test_a_healthy_cohort_has_notes_only(root, capsys):
    found = said(root)
    assert {severity for severity, _, _ in found} <= {"note", "warning"}
    assert [what for severity, _, what in found if severity == "warning"] == [
        "So few relapses (3) say nothing about this center's own concordance."
    ]
    counts = next(what for _, area, what in found if area == "cohort" and "patients" in what)
    assert counts.startswith("6 patients, 6 with PET, 6 with a label, 6 with GTVp, 4 with GTVn, 6 with an outcome, 3")


def test_planted_faults_are_all_found_at_once(root):
    content = image(root, "CHUM-001", "__CT").read_bytes()
    image(root, "CHUM-001", "__CT").write_bytes(content[: len(content) // 2])
    change(root, "CHUM-002", "__PT", lambda pet: pet * 20_000)
    change(root, "CHUM-003", "", lambda label: label * 3)
    change(root, "CHUM-004", "", lambda label: label * 0)
    shutil.copy(image(root, "CHUM-005", "__CT"), image(root, "CHUM-006", "__CT"))
    save(image(root, "CHUM-006", "__PT"), np.random.default_rng(0).random((16, 16, 16)), shift_mm=400.0)
    shutil.copy(image(root, "CHUM-005", ""), root / "imagesTr" / "CHUM-007_old.nii.gz")
    table = root / "hecktor2022_clinical_info_training.csv"
    table.write_text(table.read_text().replace("CHUM-001,1,1,1,F,53,80", "CHUM-001,1,1,1,F,930,80"))
    found = said(root)
    assert has(found, "error", "images", "CT file is missing, corrupt or truncated", ["CHUM-001"])
    assert has(found, "error", "images", "looks like Bq/mL", ["CHUM-002"])
    assert has(found, "error", "images", "label holds the value", ["CHUM-003"])
    assert has(found, "warning", "labels", "label is empty", ["CHUM-004"])
    assert has(found, "error", "cohort", "same CT, voxel for voxel", ["CHUM-005", "CHUM-006"])
    assert has(found, "error", "images", "CT and PET do not overlap", ["CHUM-006"])
    assert has(found, "warning", "folder", "1 image files of this center belong to no case")
    assert has(found, "warning", "records", "1 values of 'age'")
    assert has(said(root, policy=policy(minimum_cases=3)), "error", "cohort", "2 cases can be used, fewer than")


def policy(**changes):
    from client.policy import Policy

    return Policy(**changes)


@pytest.mark.parametrize(
    ("kind", "how", "severity", "area", "words"),
    [
        ("__CT", lambda ct: np.clip(ct, 0, None), "warning", "images", "The CT holds no air"),
        ("__CT", lambda ct: np.where(ct == -1000, -3024, ct), "note", "images", "padded below -1100"),
        ("__PT", lambda pet: pet / pet.max(), "warning", "images", "highest value is below 1.5"),
        ("__PT", lambda pet: pet + 12, "warning", "images", "mean is above 10"),
        ("__PT", lambda pet: pet - 1, "warning", "images", "negative values"),
        ("__PT", lambda pet: pet * np.nan, "error", "images", "NaN or infinite"),
    ],
)
def test_implausible_values_are_told(root, kind, how, severity, area, words):
    change(root, "CHUM-003", kind, how)
    case = next(case for case in find_cases(root) if case.patient == "CHUM-003")
    found = {(f.severity, f.area, f.what): f.cases for f in examine(case).findings}
    assert has(found, severity, area, words, ["CHUM-003"])


def test_geometry_that_contradicts_itself_is_told(root):
    path = image(root, "CHUM-001", "__CT")
    data = np.asarray(nib.load(path).dataobj)
    one = nib.Nifti1Image(data, np.diag([6.0, 6.0, 6.0, 1.0]))
    turned = np.diag([6.0, 6.0, 6.0, 1.0])
    turned[0, 3] = 20
    one.set_sform(turned, code=1)
    one.set_qform(np.diag([6.0, 6.0, 6.0, 1.0]), code=1)
    nib.save(one, path)
    blank = nib.Nifti1Image(np.asarray(nib.load(image(root, "CHUM-002", "__CT")).dataobj), None)
    blank.header.set_zooms((20.0, 20.0, 20.0))
    nib.save(blank, image(root, "CHUM-002", "__CT"))
    found = said(root)
    assert has(found, "warning", "images", "two different geometries", ["CHUM-001"])
    assert has(found, "warning", "images", "does not say how it lies", ["CHUM-002"])
    assert has(found, "warning", "images", "outside 0.3 to 8 mm", ["CHUM-002"])
    assert has(found, "warning", "labels", "different grids")


def phantom_pair(shift_mm):
    """A body of soft tissue in air, hot in its middle; the PET moved sideways."""
    ct = np.full((40, 40, 20), -1000, np.int16)
    ct[10:30, 12:28, :] = 40
    pet = np.where(ct > 0, 2.0, 0.05).astype(np.float32)
    affine, moved = np.diag([6.0, 6.0, 6.0, 1.0]), np.diag([6.0, 6.0, 6.0, 1.0])
    moved[0, 3] = shift_mm
    from client.data.images.nifti import Volume

    return Volume(ct, affine), Volume(pet, moved)


@pytest.mark.parametrize("shift", [0, 12, 24, 36, 48])
def test_uptake_outside_the_body_grows_with_a_shift(shift):
    """Moved by so much of a body of 120 mm, as long as the PET stays within the CT's box."""
    assert uptake_outside(*phantom_pair(shift)) == pytest.approx(shift / 120, abs=0.01)


def test_real_scans_that_moved_apart_stand_out(shared):
    """sts7 marks one class of cases whose CT and PET were found apart on review (qc_flag)."""
    folder = shared / "data" / "sts7"
    table = pd.read_csv(folder / "ehr.csv").set_index("PatientID")
    share = {}
    for patient in sorted(table.index)[:8]:
        ct, pet = (read_volume(folder / "imagesTr" / f"{patient}__{k}.nii.gz", role=k) for k in ("CT", "PT"))
        share[patient] = uptake_outside(ct, pet)
    aligned = [s for p, s in share.items() if table.qc_flag.get(p) != 1 and s is not None]
    assert len(aligned) >= 4 and np.median(aligned) < 0.1


# ------------------------------------------------------------------------------------------------------- privacy


def test_names_in_headers_are_found_wherever_they_hide(root, tmp_path):
    path = image(root, "CHUM-001", "__CT")
    one = nib.load(path)
    one.header["descrip"], one.header["aux_file"] = b"DOE JANE 1951", b"4711.dcm"
    one.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Jane Doe"))
    nib.save(one, tmp_path / "x.nii")
    with path.open("wb") as raw, gzip.GzipFile("DOE_JANE.nii", "wb", fileobj=raw) as file:
        file.write((tmp_path / "x.nii").read_bytes())
    assert gzip_name(path) == "DOE_JANE.nii"
    found = identifying_fields(path)
    assert sorted(found) == [
        "compressed content", "header extension", "header field 'aux_file'", "header field 'descrip'",
    ]  # fmt: skip
    assert "DOE" not in str(found) and "4711" not in str(found)
    assert has(said(root), "warning", "privacy", "The CT file's header field 'descrip' holds free text", ["CHUM-001"])


@pytest.mark.parametrize(
    "text", ["", "FSL5.0", "5.0.10", "SimpleITK 2.3", "TE=0;Time=0", "nibabel", "SPM12 - realigned"]
)
def test_what_tools_write_into_headers_is_no_name(tmp_path, text):
    one = nib.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4))
    one.header["descrip"] = text.encode()
    nib.save(one, tmp_path / "a.nii")
    assert identifying_fields(tmp_path / "a.nii") == {}


def test_a_dicom_header_kept_in_an_extension_is_an_error(root):
    path = image(root, "CHUM-001", "__PT")
    one = nib.load(path)
    one.header.extensions.append(nib.nifti1.Nifti1Extension(2, b"\x10\x00\x10\x00PN\x08\x00Doe^Jane"))
    nib.save(one, path)
    assert has(said(root), "error", "privacy", "DICOM extension", ["CHUM-001"])


def test_the_json_counts_patients_and_names_them_only_when_asked(root, tmp_path, capsys):
    change(root, "CHUM-002", "__PT", lambda pet: pet * 20_000)
    file = tmp_path / "center.yaml"
    OmegaConf.save(OmegaConf.create({"code": "CHUM", "root": str(root), "vault": str(tmp_path / "v")}), file)
    assert main(["doctor", "--center", str(file), "--json"]) == 1
    text = capsys.readouterr().out
    assert "CHUM-0" not in text and json.loads(text)["patients"] == 6
    assert main(["doctor", "--center", str(file), "--json", "--ids"]) == 1 and "CHUM-002" in capsys.readouterr().out


def test_the_page_holds_everything_itself(root, tmp_path, capsys):
    change(root, "CHUM-002", "__PT", lambda pet: pet * 20_000)
    file, page = tmp_path / "center.yaml", tmp_path / "doctor.html"
    OmegaConf.save(OmegaConf.create({"code": "CHUM", "root": str(root), "vault": str(tmp_path / "v")}), file)
    assert main(["doctor", "--center", str(file), "--html", str(page), "--thumbnails", "2"]) == 1
    text = page.read_text()
    assert text.count("data:image/png;base64,") == 2 and "http" not in text and "looks like Bq/mL" in text
    assert text.index('alt="CHUM-002') < text.index('alt="CHUM-001')  # the worst first


# ------------------------------------------------------------------------------------------------------- records


def write_tables(root, events, **columns):
    clinical = {"PatientID": [f"CHUM-{n:03d}" for n in range(1, len(events) + 1)], "Gender": "M", "Age": 60, **columns}
    pd.DataFrame(clinical).to_csv(root / "hecktor2022_clinical_info_training.csv", index=False)
    endpoint = {"PatientID": clinical["PatientID"], "Relapse": events, "RFS": range(200, 200 + len(events))}
    pd.DataFrame(endpoint).to_csv(root / "hecktor2022_endpoint_training.csv", index=False)
    return root


def test_a_field_that_knows_the_outcome_is_told(tmp_path):
    (tmp_path / "root").mkdir()
    events = [0, 1] * 6
    root = write_tables(tmp_path / "root", events, Chemotherapy=events, Tobacco=[1, None] * 6, Surgery=[0, 1, 1] * 4)
    found = said(root)
    assert has(found, "warning", "records", "The value of 'chemotherapy' tells who relapses (AUROC 1.00)")
    assert has(found, "warning", "records", "The mere presence of 'tobacco' tells who relapses")
    assert not any("surgery' tells" in what for _, _, what in found)


def test_units_that_do_not_fit_are_told(tmp_path):
    (tmp_path / "root").mkdir()
    root = write_tables(tmp_path / "root", [0, 1, 0, 1, 0, 1], Weight=[180, 170, 190, 200, 150, 160])
    endpoint = root / "hecktor2022_endpoint_training.csv"
    endpoint.write_text(endpoint.read_text().replace(",20", ",4"))
    found = said(root)
    assert has(found, "warning", "records", "median body weight is 175 kg")
    assert has(found, "warning", "records", "The longest follow-up is 45 days")


def test_an_outcome_column_that_was_not_read_is_told(root):
    (root / "hecktor2022_endpoint_training.csv").unlink()
    table = root / "hecktor2022_clinical_info_training.csv"
    pd.read_csv(table).assign(Relapse=1, RFS=100).to_csv(table, index=False)
    assert has(said(root), "warning", "records", "A table has the column 'Relapse', but no outcome was read")


def test_a_missing_folder_and_a_stranger_in_it_are_sentences(tmp_path, root):
    found = said(tmp_path / "nowhere")
    assert has(found, "error", "folder", "does not exist")
    _, other = diagnose(CenterConfig("MDA", str(root), cache=str(tmp_path / "c"), vault=str(tmp_path / "v")))
    assert any(f.severity == "error" and "Center 'MDA' has no case" in f.what for f in other)


def test_the_stated_edition_is_held_against_the_folder(root):
    assert not [a for _, a, _ in said(root, layout="2022") if a == "folder"]
    assert has(said(root, layout="2026"), "warning", "folder", "18 files lie elsewhere than HECKTOR 2026 puts them")
    assert has(said(root, layout="2019"), "error", "folder", "layout is '2019'")


@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2).filter(lambda xs: len({b for _, b in xs}) == 2)
)
def test_auroc_is_the_share_of_pairs_in_order(pairs):
    values, event = np.array([v for v, _ in pairs], float), np.array([b for _, b in pairs], float)
    wins = [(a > b) + 0.5 * (a == b) for a in values[event == 1] for b in values[event == 0]]
    assert auroc(values, event) == pytest.approx(np.mean(wins))


def test_findings_of_one_kind_are_joined_and_the_worst_comes_first():
    one, other = Finding("note", "images", "b", "", ("B",)), Finding("error", "network", "a")
    found = gathered([one, other, Finding("note", "images", "b", "", ("A",))])
    assert found == [other, Finding("note", "images", "b", "", ("A", "B"))]


# ---------------------------------------------------------------------------------------------- machine and network


def test_the_machine_is_held_against_the_file(root, monkeypatch):
    vault = root / "vault"
    vault.mkdir(mode=0o755)
    config = CenterConfig("CHUM", str(root), cache="/proc/nowhere", vault=str(vault), device="gpu", threads=4096)
    found = {(f.severity, f.area, f.what): () for f in machine.check_machine(config)}
    assert has(found, "error", "machine", "cache (/proc/nowhere) cannot be written")
    assert has(found, "error", "machine", "device is 'gpu'") and has(found, "warning", "machine", "threads is 4096")
    assert has(found, "warning", "privacy", "Others on this machine may look into the vault")
    assert has(found, "warning", "privacy", "The vault lies inside the data folder")
    monkeypatch.setattr(machine.time, "time", lambda: 0.0)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 2 * 10**9))
    late = {(f.severity, f.area, f.what): () for f in machine.check_machine(center(root))}
    assert has(late, "error", "machine", "The clock says 1970") and has(late, "warning", "machine", "2.0 GB free")


@pytest.mark.slow
def test_a_curriculum_is_tried_on_this_machine(root):
    found = {(f.severity, f.area, f.what): f for f in check_need(center(root), ["curriculum=smoke"])}
    digest = next(what for _, area, what in found if area == "model")
    assert (
        has(dict.fromkeys(found, ()), "note", "machine", "Step 'tumour_ctpet' needs") and len(digest.split()[-1]) == 65
    )
    elsewhere = center(root, policy=policy(bases=["0"]))
    other = {(f.severity, f.area, f.what): () for f in check_need(elsewhere, ["curriculum=smoke"])}
    assert has(other, "error", "model", "not on this center's allow-list")


class Answer(http.server.BaseHTTPRequestHandler):
    """/health as Flower answers it, with a clock that a test may set."""

    late_s = 0.0

    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

    def date_time_string(self, timestamp=None):
        return super().date_time_string(datetime.now().timestamp() - self.late_s)

    def log_message(self, *words):
        pass


def certificate(folder: Path, *, days: int = 365, name: str = "localhost") -> Path:
    """A self-signed certificate and its key in one PEM file."""
    key, subject = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(
            subject, subject, key.public_key(), 1, now - timedelta(days=2), now + timedelta(days=days)
        )
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    path = folder / f"{name}-{days}.pem"
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(made.public_bytes(pem) + private)
    return path


@pytest.fixture
def serve():
    running = []

    def start(pem: Path | None, late_s: float = 0.0) -> int:
        handler = type("Handler", (Answer,), {"late_s": late_s})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        if pem is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(pem)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        running.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server.server_port

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.fixture
def asked(root, tmp_path):
    make_keys(tmp_path / "key", comment="test")

    def ask(port, ca: Path | None, host="localhost"):
        config = center(
            root, server=f"{host}:{port}", key=str(tmp_path / "key"), health="127.0.0.1:1",
            server_certificate=str(ca or tmp_path / "absent.crt"),
        )  # fmt: skip
        return {(f.severity, f.area, f.what): () for f in network.check_network(config)}

    return ask


def test_a_coordinator_in_good_health(serve, asked, tmp_path):
    pem = certificate(tmp_path)
    found = asked(serve(pem), pem)
    assert {severity for severity, _, _ in found} == {"note"} and has(
        found, "note", "network", "says that it is healthy"
    )
    assert has(found, "note", "network", "TLS handshake with the coordinator: TLSv1.3, 364 days left")


def test_everything_between_here_and_the_coordinator_is_told(serve, asked, tmp_path, monkeypatch):
    good, old, other = certificate(tmp_path), certificate(tmp_path, days=9), certificate(tmp_path, name="elsewhere")
    assert has(asked(serve(good), old), "error", "network", "certificate that is not trusted")
    assert has(asked(serve(other), other), "error", "network", "certificate that is not trusted (Hostname mismatch")
    assert has(asked(serve(old), old), "warning", "network", "certificate ends in 8 days")
    assert has(asked(serve(None), good), "error", "network", "does not speak TLS")
    assert has(asked(serve(good, late_s=60), good), "error", "network", "s ahead of the coordinator")
    assert has(asked(serve(good, late_s=-600), good), "error", "network", "s behind the coordinator's")
    assert has(asked(1, good), "error", "network", "refuses the connection")
    assert has(asked(serve(good), None), "error", "network", "certificate authority is missing")

    def unknown(*where, **how):
        raise socket.gaierror("unknown name")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)  # a resolver without a network may take minutes
    assert has(asked(443, good, host="no-such-host.invalid"), "error", "network", "cannot resolve")


def test_doctor_says_with_whom_secure_sums_are_possible(root, tmp_path):
    def told(**settings):
        return list(network._partners(center(root, **settings)))

    assert told() == []
    [missing] = told(policy=Policy(require_secure_aggregation=True))
    assert missing.severity == "error" and "every step is declined" in missing.what
    for code in ("CHUM", "CHUP", "MDA"):
        make_keys(tmp_path / "keys" / code, comment=code)
    [found] = told(partners=str(tmp_path / "keys"))
    assert found.what == "Secure sums are possible with 2 hospitals: CHUP, MDA."
    (tmp_path / "keys" / "CHUP.pub").write_text("no key")
    assert told(partners=str(tmp_path / "keys"))[0].severity == "error"
    assert "is no folder" in told(partners=str(tmp_path / "absent"))[0].remedy


def test_a_key_that_others_can_read_is_an_error(serve, asked, tmp_path):
    pem = certificate(tmp_path)
    (tmp_path / "key").chmod(0o644)
    assert has(asked(serve(pem), pem), "error", "privacy", "may read the node's private key")
    (tmp_path / "key").unlink()
    assert has(asked(serve(pem), pem), "error", "network", "has no private key")


class Proxy(http.server.BaseHTTPRequestHandler):
    """Opens a way to the coordinator for any name, or refuses; counts who asked."""

    coordinator, lets_through = 0, True
    seen: list[str] = []  # noqa: RUF012

    def do_CONNECT(self):
        self.seen.append(self.path)
        if not self.lets_through:
            self.send_error(403, "not allowed")
            return
        with socket.create_connection(("127.0.0.1", self.coordinator)) as there:
            self.send_response(200)
            self.end_headers()
            ends = {self.connection: there, there: self.connection}
            while ready := select.select(list(ends), [], [], 2)[0]:
                for end in ready:
                    if not (data := end.recv(65536)):
                        return
                    ends[end].sendall(data)

    def log_message(self, *words):
        pass


@pytest.fixture
def proxy(monkeypatch):
    running = []

    def start(coordinator: int, *, lets_through: bool = True) -> list[str]:
        seen: list[str] = []
        kind = type("P", (Proxy,), {"coordinator": coordinator, "lets_through": lets_through, "seen": seen})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind)
        running.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name in ("HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, f"http://user:secret@127.0.0.1:{server.server_port}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        return seen

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def test_doctor_goes_the_way_the_node_goes(serve, asked, tmp_path, proxy, monkeypatch):
    pem = certificate(tmp_path, name="coordinator.invalid")
    seen = proxy(serve(pem))
    found = asked(8443, pem, host="coordinator.invalid")
    assert {severity for severity, _, _ in found} == {"note"} and seen == ["coordinator.invalid:8443"]
    assert has(found, "note", "network", "goes through the proxy 127.0.0.1:")
    assert not any("secret" in what for _, _, what in found)
    monkeypatch.setenv("NO_PROXY", "coordinator.invalid")
    monkeypatch.setenv("no_proxy", "coordinator.invalid")
    direct = asked(8443, pem, host="coordinator.invalid")
    assert len(seen) == 1 and has(direct, "error", "network", "cannot resolve")


def test_a_proxy_that_refuses_is_named_as_the_reason(serve, asked, tmp_path, proxy):
    pem = certificate(tmp_path, name="coordinator.invalid")
    proxy(serve(pem), lets_through=False)
    found = asked(8443, pem, host="coordinator.invalid")
    assert has(found, "error", "network", "does not let this machine through to coordinator.invalid:8443 (403")


def test_other_layouts_are_named_counted_and_examined(tmp_path, capsys):
    root = in_nnunet(in_hecktor(tmp_path / "hecktor", {"CHUM": 2, "MDA": 2}), tmp_path / "nnunet")
    found = said(root)
    line = "nnunet layout: 2 cases of 1 center (CHUM 2); CT, PET on the CT's grid; 2 labels of GTVp, GTVn."
    assert has(found, "note", "folder", line)
    assert has(found, "note", "cohort", "2 patients, 2 with PET, 2 with a label, 2 with GTVp, 2 with GTVn")
    save(root / "labelsTr" / "CHUM_001.nii.gz", np.full((16, 16, 16), 3, np.uint8))
    broken = said(root)
    assert has(broken, "error", "images", "The label holds the value 3.")
    assert has(said(root, layout="brats"), "error", "folder", "neither CASE_t1 nor CASE-t1n files")


def test_images_without_a_ct_are_examined_and_drawn(tmp_path, capsys):
    root = in_brats(in_hecktor(tmp_path / "hecktor", {"CHUM": 2}), tmp_path / "brats")
    config = center(root, modalities=["T1", "FLAIR"])
    config.code = "C1"
    (tmp_path / "center.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))
    assert main(["doctor", "--center", str(tmp_path / "center.yaml"), "--html", str(tmp_path / "page.html")]) in (0, 1)
    assert "2 with FLAIR" in capsys.readouterr().out
    assert (tmp_path / "page.html").read_text().count("data:image/png") == 2
    assert main(["describe", "--center", str(tmp_path / "center.yaml"), "--json", "--minimum", "1"]) == 0
    counts = json.loads(capsys.readouterr().out)["counts"]
    assert counts["with FLAIR"] in (2, "<5")
