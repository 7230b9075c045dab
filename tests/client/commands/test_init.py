"""init: a file that the release itself reads, and a key pair that Flower's node authentication takes."""

import stat
import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.cli.supernode.register import try_load_public_key

from client.__main__ import main
from client.center.config import CenterConfig, read_config
from client.commands import COMMANDS
from client.data.splits import Deal
from client.node.keys import fingerprint, load_key
from client.policy import Policy
from client.policy import test_folds as folds_of
from common.errors import ConfigError


def init(tmp_path, *words):
    required = ["--code", "CHUM", "--root", str(tmp_path / "data: #1"), "--server", "fed.example.org:443"]
    return main(["init", "--yes", "--out", str(tmp_path / "center.yaml"), *required, *words])


def test_the_file_says_what_was_answered_and_explains_every_key(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert init(tmp_path, "--minimum-cases", "7", "--modalities", "ct, pet") == 0
    config, text = read_config(tmp_path / "center.yaml"), (tmp_path / "center.yaml").read_text()
    assert (config.code, config.root) == ("CHUM", str(tmp_path / "data: #1"))
    assert (config.server, config.server_certificate) == ("fed.example.org:443", str(tmp_path / "keys" / "ca.crt"))
    assert stat.S_IMODE((tmp_path / ".vault").stat().st_mode) == 0o700
    assert (config.modalities, config.policy.minimum_cases, config.layout) == (["CT", "PET"], 7, "auto")
    lines = text.splitlines()
    for name in [*vars(CenterConfig("A", "b")), *vars(Policy())]:
        [where] = [i for i, line in enumerate(lines) if line.strip().startswith(f"{name}:")]
        above = [line.strip() for line in lines[max(0, where - 2) : where]]
        assert any(line.startswith("#") for line in above), f"{name} is not explained"


@pytest.mark.parametrize("said, split", [("3,5,.25", Deal(3, 5, 0.25)), ("0, 2, 0", Deal(0, 2, 0.0)), ("", None)])
def test_the_agreed_split_is_declared(tmp_path, monkeypatch, said, split):
    monkeypatch.chdir(tmp_path)
    assert init(tmp_path, "--split", said) == 0
    config = read_config(tmp_path / "center.yaml")
    assert config.split == split and folds_of(config.policy) == [0]


@pytest.mark.parametrize("said", ["5", "0,1,0.2", "0,5,1.0", "a,5,0.2"])
def test_a_split_that_is_none_is_refused(tmp_path, capsys, said):
    assert init(tmp_path, "--split", said) == 2 and f"split is '{said}'; write the seed" in capsys.readouterr().err


@pytest.mark.parametrize(
    "key, value, sentence",
    [
        ("test_folds: [0]", "test_folds: [5]", "lets fold 5 test, but its split has the folds 0 to 4"),
        ("test_folds: [0]", "test_folds: none", "policy.test_folds is none; write the folds"),
        ("folds: 5", "folds: 1", "a split of 1 folds"),
    ],
)
def test_a_file_whose_split_cannot_be_is_told(tmp_path, monkeypatch, key, value, sentence):
    monkeypatch.chdir(tmp_path)
    init(tmp_path, "--split", "0,5,0.2")
    file = tmp_path / "center.yaml"
    file.write_text(file.read_text().replace(key, value))
    with pytest.raises(ConfigError, match=sentence):
        read_config(file)


def test_flower_takes_the_keys_and_only_the_owner_reads_the_private_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    init(tmp_path)
    private = tmp_path / "keys" / "CHUM"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600 and isinstance(load_key(private), ec.EllipticCurvePrivateKey)
    assert try_load_public_key(tmp_path / "keys" / "CHUM.pub")
    public = (tmp_path / "keys" / "CHUM.pub").read_text().strip()
    said = capsys.readouterr().out
    assert public in said and fingerprint(public) in said and "PRIVATE KEY" not in said
    listed = subprocess.run(["ssh-keygen", "-lf", tmp_path / "keys" / "CHUM.pub"], capture_output=True, text=True)
    if listed.returncode == 0:
        assert listed.stdout.split()[1] == fingerprint(public)


def test_a_second_time_keeps_the_key_and_does_not_overwrite_the_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    init(tmp_path)
    key = (tmp_path / "keys" / "CHUM").read_bytes()
    assert init(tmp_path) == 2 and "exists; name another file" in capsys.readouterr().err
    assert init(tmp_path, "--force") == 0 and (tmp_path / "keys" / "CHUM").read_bytes() == key


def test_everything_that_is_wrong_is_said_at_once(tmp_path, capsys):
    words = ["--code", "chum 1", "--server", "https://fed", "--modalities", "EHR", "--minimum-cell", "0"]
    assert main(["init", "--yes", "--out", str(tmp_path / "c.yaml"), *words]) == 2
    said = capsys.readouterr().err
    for what in ("code is 'chum 1'", "server is 'https://fed'", "modalities is 'EHR'", "minimum_cell is '0'"):
        assert what in said
    assert not (tmp_path / "c.yaml").exists()


def test_a_file_that_is_no_key_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "key").write_text("hello")
    assert init(tmp_path, "--key", str(tmp_path / "key")) == 2
    assert "is not a private key" in capsys.readouterr().err and (tmp_path / "key").read_text() == "hello"


def test_a_question_that_no_flag_answers_is_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = {}

    def answer(text, *, default, choices):
        asked[text] = default
        return default

    monkeypatch.setattr("rich.prompt.Prompt.ask", answer)
    assert main(["init", "--code", "CHUM", "--server", ""]) == 0
    assert len(asked) == 10 and read_config(tmp_path / "center.yaml").server_certificate == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0 and f"python -m client {command}" in capsys.readouterr().out.split("example:")[1]
