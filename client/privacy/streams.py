"""Streams of randomness that only this hospital can know: keyed by a secret of the vault and by what is asked.

The secret is 256 bits of the operating system's. A stream is ChaCha20's keystream under a key that HKDF-SHA256 derives
from the secret and the question: the same question about the same patients gets the same bits again, which tells
nothing new; any other question gets others. It never comes from the run's seed, which the coordinator knows.

A secret that is lost is a new account: nothing that was drawn can be repeated, and whatever is asked is drawn and
charged anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import secrets
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from client.privacy.spending import read_account
from client.vault.lock import alone
from client.vault.standing import VaultError
from common.store.sealed import DamagedFile, read_sealed, write_sealed

FILE = "privacy-secret.json"
BITS = 256
NONCE = bytes(16)  # each key is for one stream, so the counter may start at 0
TERMS = 4  # Gaussians in each sample: a single one's floating point can betray it (Holohan & Braghin 2021)

log = logging.getLogger("fedgraft.center")


def secret_of(vault: Path) -> bytes:
    """The vault's secret, made the first time.

    Raises:
        VaultError: it is there and damaged.
    """
    path = vault / FILE
    with alone(path):
        if not path.exists():
            if read_account(vault).charges:
                log.warning(
                    "%s is gone: what was drawn before cannot be repeated. Whatever is asked from now on is drawn anew "
                    "and charged.", path,
                )  # fmt: skip
            write_sealed(path, secrets.token_bytes(BITS // 8).hex())
            path.chmod(0o600)
        try:
            return bytes.fromhex(
                read_sealed(
                    path,
                    remedy="restore the vault from a backup, or move the file aside: what is asked again is then drawn "
                    "and charged anew.",
                )
            )
        except DamagedFile as error:
            raise VaultError(str(error)) from error


def known_secret(seed: int) -> bytes:
    """A test's, which protects nobody: whoever knows the seed takes the noise away."""
    return hashlib.sha256(f"not private\x1f{seed}".encode()).digest()


def key_of(secret: bytes, question: Mapping[str, object], purpose: str) -> bytes:
    """A key of 256 bits for one purpose of one question, an object of plain values."""
    info = json.dumps({"purpose": purpose, "question": question}, sort_keys=True, separators=(",", ":")).encode()
    return HKDF(hashes.SHA256(), length=32, salt=None, info=info).derive(secret)


class Stream:
    """Numbers from one key, in the order in which they are asked for.

    Args:
        key: 256 bits, used for nothing else.
    """

    def __init__(self, key: bytes):
        self._keystream = Cipher(ChaCha20(key, NONCE), mode=None).encryptor()

    def uniforms(self, count: int) -> np.ndarray:
        """Float64 in (0, 1), 53 bits each, neither end included."""
        drawn = np.frombuffer(self._keystream.update(bytes(8 * count)), dtype="<u8")
        return ((drawn >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53

    def normals(self, count: int) -> np.ndarray:
        """Standard normal float64: sums of four by Box and Muller, halved."""
        first, second = self.uniforms(2 * TERMS * count).reshape(2, TERMS, count)
        each = np.sqrt(-2 * np.log(first)) * np.cos(2 * math.pi * second)
        found: np.ndarray = each.sum(axis=0) / math.sqrt(TERMS)
        return found

    def seed(self) -> int:
        """63 bits, for a generator that is not ours."""
        return int.from_bytes(self._keystream.update(bytes(8)), "little") >> 1
