"""Names of runs and codes of centers stay what was typed, on the command line and in center.yaml."""

from __future__ import annotations

import pytest

from client.center.config import read_config
from client.node.node import node_of
from common.config.load import as_typed, compose_run
from common.errors import ConfigError

TYPED = ["1.1", "1.10", "2026_11", "v1.10", "1e3", "007", "0x1f", "true", "NO", "null", "nan", "5-fold", "a:b"]


@pytest.mark.parametrize("text", TYPED)
def test_a_runs_name_is_what_was_typed(text):
    assert compose_run(["curriculum=quickstart", f"name={text}"]).name == text
    assert compose_run(["curriculum=quickstart", f"name='{text}'"]).name == text


def test_codes_of_centers_are_what_was_typed():
    run = compose_run(["curriculum=smoke", "steps.tumour_ct.centers=[NO,1e3,007]", "steps.tumour_ct.evaluate_at=[01]"])
    assert run.steps["tumour_ct"].centers == ["NO", "1e3", "007"] and run.steps["tumour_ct"].evaluate_at == ["01"]


@pytest.mark.parametrize(
    "override", ["seed=3", "name='a b'", "name=${seed}", "steps.a.centers=[]", "~steps.a", "data=folder"]
)
def test_everything_else_is_left_alone(override):
    assert as_typed([override]) == [override]


@pytest.mark.parametrize("code", ["NO", "1e3", "007", "true", "1.10", "null_island"])
def test_a_centers_code_is_what_was_typed(tmp_path, code):
    path = tmp_path / "center.yaml"
    path.write_text(f"code: {code}\nroot: 2026_11\nthreads: 2\ngpu_memory_gb: 1.5\ndeterministic: false\n"
                    "server: fed:443\nserver_certificate: ca\nkey: key\npolicy: {minimum_cases: 7}\n")  # fmt: skip
    config = read_config(path)
    assert (config.code, config.root) == (code, "2026_11") and node_of(path).code == code
    assert (config.threads, config.gpu_memory_gb, config.deterministic) == (2, 1.5, False)
    assert config.policy.minimum_cases == 7


@pytest.mark.parametrize(
    ("typed", "meant"), [("PTT", "PET"), ("pet", "PET"), ("PT", "PET"), ("ct", "CT"), ("EHRR", "EHR")]
)
def test_a_slip_in_a_modality_is_refused_and_not_filtered_in_silence(tmp_path, typed, meant):
    path = tmp_path / "center.yaml"
    path.write_text(f"code: CHUM\nroot: {tmp_path}\nmodalities: [CT, {typed}]\n")
    with pytest.raises(ConfigError, match=f"names the modality '{typed}', which is none; did you mean '{meant}'"):
        read_config(path)


def test_a_key_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / "center.yaml"
    path.write_text(f"code: CHUM\nroot: {tmp_path}\ncode: CHUP\n")
    with pytest.raises(ConfigError, match="'code' stands twice"):
        read_config(path)
