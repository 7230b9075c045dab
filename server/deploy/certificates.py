"""The federation's own certificate authority and the server's certificate, with the `cryptography` package."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.errors import FedgraftError
from common.files import write_bytes

AUTHORITY_DAYS = 3650
EARLIER = timedelta(minutes=5)  # clocks of hospitals may be late
WARNED_DAYS = 30.0  # ahead of the end


def make_authority(certificate: Path, key: Path) -> None:
    """A self-signed authority that can sign server certificates and nothing below it."""
    private = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fedgraft federation authority")])
    built = (
        _builder(name, private, days=AUTHORITY_DAYS)
        .issuer_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
    )
    _write(certificate, key, built.sign(private, hashes.SHA384()), private)


def make_server_certificate(
    certificate: Path, key: Path, *, authority: Path, authority_key: Path, name: str, days: int
) -> None:
    """A server certificate for a DNS name or address, and for loopback, where the SuperLink itself listens."""
    issuer = x509.load_pem_x509_certificate(authority.read_bytes())
    signer = _private_key(authority_key)
    private = ec.generate_private_key(ec.SECP256R1())
    built = (
        _builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])]), private, days=days)
        .issuer_name(issuer.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(_names(name)), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()),  # type: ignore[arg-type]
            critical=False,
        )
    )
    _write(certificate, key, built.sign(signer, hashes.SHA384()), private)


def days_left(certificate: Path) -> float:
    """Days until a certificate ends; negative when it has."""
    ends = x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    return (ends - datetime.now(UTC)).total_seconds() / 86400


def ending(certificate: Path, *, remedy: str, within_days: float = WARNED_DAYS) -> str:
    """A sentence where a certificate ends soon or has ended; empty where it does not.

    Args:
        remedy: what to do, as the sentence goes on.
    """
    left = days_left(certificate)
    if left > within_days:
        return ""
    when = f"ends in {left:.0f} days" if left > 0 else "has expired"
    return f"{certificate.name} {when}; {remedy}."


def _builder(subject: x509.Name, private: ec.EllipticCurvePrivateKey, *, days: int) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - EARLIER)
        .not_valid_after(now + timedelta(days=days))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _names(name: str) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    try:
        own: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        own = x509.DNSName(name)
    return [own, *(other for other in names if other != own)]


def _private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    if not path.exists():
        raise FedgraftError(
            f"{path} is not here: bring the authority's key back to sign a certificate, then away again."
        )
    key = load_pem_private_key(path.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def _write(certificate: Path, key: Path, built: x509.Certificate, private: ec.EllipticCurvePrivateKey) -> None:
    write_bytes(key, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    key.chmod(0o600)
    write_bytes(certificate, built.public_bytes(Encoding.PEM))
    certificate.chmod(0o644)
