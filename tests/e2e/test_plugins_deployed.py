"""A rule of one's own over a real deployment: each side names its own file, and both run the same release."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from common.store.ledger import Ledger
from server.commands import report
from simulations.virtual.loopback import loopback
from tests.helpers.deployed import need_nginx, one_step, start_nodes
from tests.helpers.small import write_cohort
from tests.test_own_things import CODE, PAGES

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200), pytest.mark.usefixtures("no_plugins")]


def name_plugin(file: Path, title: str, code: str) -> None:
    """Write the file where a configuration looks for it, and its name into the configuration."""
    (file.parent / title).write_text(code)
    file.write_text(OmegaConf.to_yaml(OmegaConf.merge(OmegaConf.load(file), {"plugins": [title]})))


def test_a_rule_that_each_side_names_for_itself_aggregates(tmp_path):
    need_nginx()
    [(title, code)] = CODE.findall((PAGES / "own-rule.md").read_text())
    with loopback(tmp_path, {"CHUM": write_cohort(tmp_path / "data", {"CHUM": 6})}) as fed:
        name_plugin(fed.coordinator / "server.yaml", title, code)
        name_plugin(fed.centers["CHUM"], title, code)
        fed.start_server()
        start_nodes(fed, "CHUM")
        fed.start_run(one_step("own", "federation=halfway", "steps.tumour_ct.rounds=1", centers=("CHUM",)))
        said = fed.finish_run(within_s=600)
        folder = fed.run_folder("own")
    assert re.search(r"round 1/1", said)
    [done] = Ledger(folder.ledger).events("step_finished")
    assert done["key"] in fed.adapters("own").values()
    assert report.run(type("Words", (), {"folder": folder.path})) == 0  # its plugin is the coordinator's own
