"""Plugins: own code from files of this machine; what each may add, what is refused, and that nobody else names it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from common import plugins
from common.config.federation import FEDERATIONS
from common.config.load import compose_run, step_from_json, step_to_json
from common.errors import ConfigError, UnknownName
from common.runtime.release import own_digest

pytestmark = pytest.mark.usefixtures("no_plugins")

RULE = """
from dataclasses import dataclass
from common import plugins
from common.config.federation import Federation

@dataclass
class OwnFederation(Federation):
    kind: str = "{kind}"
    share: float = 0.5

plugins.rule("{kind}", OwnFederation, lambda updates, start, memory, setting: None)
"""


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def test_a_rule_becomes_a_choice_and_its_options_are_checked(tmp_path):
    path = write(tmp_path, "mine.py", RULE.format(kind="own_rule"))
    run = compose_run(["curriculum=smoke", f"plugins=[{path}]", "federation@steps.tumour_ct.federation=own_rule"])
    step = run.steps["tumour_ct"]
    assert run.plugins == [str(path)] and (step.federation.kind, step.federation.share) == ("own_rule", 0.5)
    assert "plugin" not in step_to_json(step) and step_from_json(step_to_json(step)) == step
    assert list(FEDERATIONS)[-1] == "own_rule" and len(FEDERATIONS) == len(FEDERATIONS.shipped) + 1
    with pytest.raises(ConfigError, match="shares"):
        compose_run(["federation@steps.tumour_ct.federation=own_rule", "steps.tumour_ct.federation.shares=1"])


def test_a_kind_that_is_not_here_is_unknown(tmp_path, monkeypatch):
    path = write(tmp_path, "mine.py", RULE.format(kind="own_rule"))
    run = compose_run(["curriculum=smoke", f"plugins=[{path}]", "federation@steps.tumour_ct.federation=own_rule"])
    sent = step_to_json(run.steps["tumour_ct"]).replace("own_rule", "another_rule")
    with pytest.raises(UnknownName, match=r"another_rule.*Did you mean 'own_rule'") as refusal:
        step_from_json(sent)
    assert refusal.value.code == "unknown"


def test_a_process_that_this_one_starts_loads_the_same(tmp_path):
    plugins.load(["mine"], folder=write(tmp_path, "mine.py", RULE.format(kind="own_rule")).parent)
    asked = "from common.config.federation import FEDERATIONS; print('own_rule' in FEDERATIONS, 'torch' in sys.modules)"
    command = [sys.executable, "-c", f"import sys; {asked}"]
    done = subprocess.run(command, cwd=plugins.ROOT, capture_output=True, text=True, check=True, env=os.environ.copy())
    assert done.stdout.split() == ["True", "False"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("import nothing_of_the_kind", r"cannot be imported \(ModuleNotFoundError in line 1: .*\); correct it"),
        ("x = 1\nx / 0", r"cannot be imported \(ZeroDivisionError in line 2"),
        ("def broken(:", r"cannot be imported \(SyntaxError"),
        ("x = 1", "adds nothing; call a function of common.plugins"),
        (RULE.format(kind="mean"), "called 'mean', which exists already"),
        (RULE.format(kind="My-Rule"), "called 'My-Rule'; write small letters"),
        (RULE.format(kind="twice") * 2, "called 'twice', which exists already"),
        ("from common import plugins\nplugins.rule('x', int, print)", "The options of 'x' must be a dataclass"),
    ],
)
def test_a_plugin_that_cannot_be_used_says_why_and_leaves_nothing_behind(tmp_path, text, sentence):
    path = write(tmp_path, "mine.py", text)
    with pytest.raises(ConfigError, match=sentence) as refusal:
        compose_run([f"plugins=[{path}]"])
    assert str(path) in str(refusal.value) or "'x'" in str(refusal.value)
    assert not plugins.LOADED and not any(plugins.ADDED.values()) and not os.environ[plugins.INHERITED]


def test_a_plugin_that_is_not_there_or_changed_says_so(tmp_path):
    with pytest.raises(ConfigError, match=f"There is no plugin 'mine': {re.escape(str(tmp_path))} or"):
        plugins.load(["mine"], folder=tmp_path)
    with pytest.raises(ConfigError, match=r"plugins=3 is no list of plugins"):
        compose_run(["plugins=3"])
    path = write(tmp_path, "mine.py", RULE.format(kind="own_rule"))
    for _ in range(2):
        plugins.load(["mine.py"], folder=tmp_path)
    path.write_text(RULE.format(kind="other"))
    with pytest.raises(ConfigError, match="changed since this process loaded it"):
        plugins.load(["mine"], folder=tmp_path)


def test_files_of_a_plugin_are_part_of_the_release(tmp_path):
    path = write(tmp_path, "mine/__init__.py", RULE.format(kind="own_rule"))
    helper = write(tmp_path, "mine/more/helper.py", "x = 1\n")
    files = plugins.files_of(["mine"], folder=tmp_path)
    assert files == {"common/own/mine/__init__.py": path, "common/own/mine/more/helper.py": helper}
    with_it = own_digest(plugins=files)
    assert with_it != own_digest()
    copy = write(tmp_path / "elsewhere", "mine/__init__.py", path.read_text())
    write(tmp_path / "elsewhere", "mine/more/helper.py", "x = 1\n")
    assert own_digest(plugins=plugins.files_of(["mine"], folder=copy.parents[1])) == with_it
    write(tmp_path / "elsewhere", "mine/more/helper.py", "x = 2\n")
    other = own_digest(plugins=plugins.files_of(["mine"], folder=copy.parents[1]))
    assert other not in (with_it, own_digest())
    assert not plugins.LOADED  # a digest imports nothing
