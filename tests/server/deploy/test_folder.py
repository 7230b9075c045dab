"""A coordinator's folder: certificates that verify, private files that are private, hospitals let in one key each."""

from __future__ import annotations

import ssl
import stat
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from common.errors import ConfigError, FedgraftError
from server.deploy.certificates import days_left
from server.deploy.folder import Deployment, ServerConfig, init, renew
from server.deploy.hospitals import enrol, fingerprint, refuse
from server.deploy.processes import nginx_program, write_nginx
from server.deploy.status import warnings_of

FLEET = ("activate-node", "pull-messages", "push-object")


@pytest.fixture
def place(tmp_path) -> Deployment:
    return init(tmp_path / "federation", ServerConfig(name="fed.example.org", public_port=18443))


def public_key(folder, name: str, curve: ec.EllipticCurve | None = None):
    path = folder / f"{name}.pub"
    key = ec.generate_private_key(curve or ec.SECP384R1()).public_key()
    path.write_bytes(key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))
    return path


def test_init_makes_everything_once_and_keeps_secrets_to_the_owner(place):
    assert Deployment.open(place.path) == place
    for file in (place.authority_key, place.key, place.secret):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(place.secret.read_bytes()) == 32
    with pytest.raises(FedgraftError, match="already"):
        init(place.path, ServerConfig())


def test_the_certificate_is_for_the_name_and_loopback_and_verifies(place):
    certificate = x509.load_pem_x509_certificate(place.certificate.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["fed.example.org", "localhost"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(place.authority.read_bytes()))
    ssl.create_default_context(cafile=str(place.authority))
    assert 824 < days_left(place.certificate) <= 825


def test_renewing_changes_the_servers_key_and_not_the_authority(place):
    before = place.authority.read_bytes(), place.key.read_bytes()
    renew(place, days=30)
    assert place.authority.read_bytes() == before[0] and place.key.read_bytes() != before[1]
    assert 29 < days_left(place.certificate) <= 30
    place.authority_key.unlink()
    with pytest.raises(FedgraftError, match=r"ca\.key is not here"):
        renew(place)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (ServerConfig(name="two words"), "no DNS name"),
        (ServerConfig(name="fed;\n}"), "no DNS name"),
        (ServerConfig(link_port=8443), "must differ"),
        (ServerConfig(public_port=70000), "between 1 and 65535"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_made(tmp_path, config, reason):
    with pytest.raises(ConfigError, match=reason):
        init(tmp_path / "new", config)
    assert not (tmp_path / "new").exists()


def test_a_folder_that_is_none_says_how_to_make_one(tmp_path):
    with pytest.raises(FedgraftError, match="server init"):
        Deployment.open(tmp_path)
    (tmp_path / "server.yaml").write_text("nmae: typo\n")
    with pytest.raises(ConfigError, match="nmae"):
        Deployment.open(tmp_path)


def test_hospitals_are_enrolled_one_key_each_replaced_and_refused(place, tmp_path):
    first, second = public_key(tmp_path, "first"), public_key(tmp_path, "second")
    assert enrol(place, "CHUM", first) == fingerprint(first.read_bytes())
    assert place.codes() == ["CHUM"]
    with pytest.raises(FedgraftError, match="key of CHUM already"):
        enrol(place, "CHUP", first)
    enrol(place, "CHUM", second)
    assert (place.enrolled / "CHUM.pub").read_bytes() == second.read_bytes()
    refuse(place, "CHUM")
    assert place.codes() == []
    with pytest.raises(FedgraftError, match="Enrolled: nobody"):
        refuse(place, "CHUM")


def test_fingerprints_are_those_of_ssh_keygen(place, tmp_path):
    key = public_key(tmp_path, "key")
    try:
        said = subprocess.run(["ssh-keygen", "-l", "-f", str(key)], capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        pytest.skip("ssh-keygen is not installed")
    assert enrol(place, "CHUM", key) in said


@pytest.mark.parametrize("code", ["../CHUM", "", "A" * 40, "a b"])
def test_a_code_that_is_no_file_name_is_refused(place, tmp_path, code):
    with pytest.raises(FedgraftError, match="no center's code"):
        enrol(place, code, public_key(tmp_path, "key"))


def test_a_key_of_another_kind_is_refused(place, tmp_path):
    (tmp_path / "other.pub").write_text("ssh-rsa nonsense")
    with pytest.raises(FedgraftError, match="no public key"):
        enrol(place, "CHUM", tmp_path / "other.pub")


def test_nginx_accepts_its_configuration_and_every_name_is_filled_in(place):
    text = write_nginx(place).read_text()
    assert "@" not in text and "listen 18443 ssl" in text and "proxy_pass https://127.0.0.1:9092" in text
    assert (
        all(path in text for path in FLEET) and "register-node" not in text and "control" not in text.split("http {")[1]
    )
    try:
        program = nginx_program()
    except FedgraftError as error:
        pytest.skip(str(error))
    command = [program, "-t", "-p", str(place.home), "-c", str(place.path / "nginx.conf")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_ends_within_thirty_days_is_said_with_its_remedy(place):
    assert warnings_of(place) == []
    renew(place, days=29)
    [said] = warnings_of(place)
    assert said.startswith(f"{place.certificate.name} ends in 29 days; python -m server renew {place.path}")
    renew(place, days=31)
    assert warnings_of(place) == []
