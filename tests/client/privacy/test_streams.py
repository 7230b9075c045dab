"""Randomness that only the vault's secret can repeat."""

import logging
import stat

import numpy as np
import pytest
from scipy import stats

from client.privacy.spending import Entry, charge
from client.privacy.streams import FILE, Stream, key_of, known_secret, secret_of
from client.vault.standing import VaultError
from common.privacy.accounting import Release

QUESTION = {"run": "r", "step": "s", "round": 1, "order": "o", "cases": "c"}


def test_the_keystream_is_chacha20s():
    """RFC 8439's cipher under a key and nonce of zeros begins 76b8e0ad a0f13d90."""
    first = int.from_bytes(bytes.fromhex("76b8e0ada0f13d90"), "little")
    assert Stream(bytes(32)).seed() == first >> 1
    assert Stream(bytes(32)).uniforms(1)[0] == ((first >> 11) + 0.5) / 2**53


def test_the_same_question_repeats_its_stream_and_any_other_has_another():
    secret = bytes(range(32))
    key = key_of(secret, QUESTION, "noise")
    assert key == key_of(secret, dict(reversed(QUESTION.items())), "noise") and len(key) == 32
    others = [key_of(secret, {**QUESTION, name: "other"}, "noise") for name in QUESTION]
    others += [key_of(secret, QUESTION, "sampling"), key_of(bytes(32), QUESTION, "noise")]
    assert len({key, *others}) == len(others) + 1


def test_normals_are_standard_and_independent():
    drawn = Stream(known_secret(1)).normals(200_000)
    assert drawn.dtype == np.float64
    assert stats.kstest(drawn, "norm").pvalue > 0.01
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.01
    assert np.std(drawn) == pytest.approx(1.0, abs=0.005) and stats.kurtosis(drawn) == pytest.approx(0, abs=0.05)


def test_uniforms_take_their_rate():
    drawn = Stream(known_secret(2)).uniforms(100_000)
    assert drawn.min() > 0 and drawn.max() < 1
    assert np.mean(drawn < 8 / 72) == pytest.approx(8 / 72, abs=0.004)


def test_a_stream_goes_on_however_it_is_asked():
    at_once, bit_by_bit = Stream(bytes(32)), Stream(bytes(32))
    assert at_once.uniforms(5).tolist() == [float(bit_by_bit.uniforms(1)[0]) for _ in range(5)]


def test_each_vault_has_one_secret_of_its_own_that_nobody_else_may_read(tmp_path):
    one, other = secret_of(tmp_path / "a"), secret_of(tmp_path / "b")
    assert len(one) == 32 and one != other
    assert secret_of(tmp_path / "a") == one
    assert stat.S_IMODE((tmp_path / "a" / FILE).stat().st_mode) == 0o600


def test_a_lost_secret_is_a_new_one_and_said(tmp_path, caplog):
    before = secret_of(tmp_path)
    charge(tmp_path, Entry("run", "step", 1, "0" * 32, (Release(1.0),)))
    (tmp_path / FILE).unlink()
    with caplog.at_level(logging.WARNING, logger="fedgraft.center"):
        assert secret_of(tmp_path) != before
    assert "drawn anew and charged" in caplog.text


def test_a_damaged_secret_draws_nothing(tmp_path):
    secret_of(tmp_path)
    (tmp_path / FILE).write_text("{}")
    with pytest.raises(VaultError, match="move the file aside: what is asked again is then drawn"):
        secret_of(tmp_path)
