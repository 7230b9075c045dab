"""A second node with a key in use, a hospital whose key was taken back, a deadline that nobody met: real processes.

Each sentence that people read is true: it names what happened and what to do.
"""

from __future__ import annotations

import shutil

import pytest
from omegaconf import OmegaConf

from common.errors import FedgraftError
from common.store.ledger import Ledger
from simulations.virtual.loopback import Loopback, command, free_ports, loopback
from tests.helpers.deployed import need_nginx, one_step, start_nodes
from tests.helpers.small import write_cohort

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
TOLD = "does not let in the key"


@pytest.fixture(scope="module")
def fed(tmp_path_factory):
    """A coordinator and one hospital, at work; the tests use it one after the other."""
    need_nginx()
    base = tmp_path_factory.mktemp("federation")
    with loopback(base, {"CHUM": write_cohort(base / "CHUM-data", {"CHUM": 6})}) as made:
        made.start_server()
        start_nodes(made, "CHUM")
        yield made


def ends(fed: Loopback, name: str, *, within_s: float) -> str:
    """What a command said that ends by itself, with exit code 2."""
    with pytest.raises(FedgraftError, match="ended"):
        fed.wait(lambda: False, what=name, name=name, within_s=within_s)
    assert fed.running.pop(name).returncode == 2
    return fed.log(name).read_text()


def is_in(fed: Loopback) -> bool:
    said = command("server", "status", str(fed.coordinator))
    return any("CHUM" in line and "online" in line for line in said.splitlines())


def test_a_second_node_from_the_same_folder_is_refused_and_the_first_one_stays(fed):
    fed._start("second", "client", "start", "--center", str(fed.centers["CHUM"]))
    said = ends(fed, "second", within_s=60.0)
    assert "A node of CHUM runs here already" in said and "Traceback" not in said
    assert is_in(fed) and fed.running["CHUM"].poll() is None


def test_a_second_node_with_a_copied_key_is_refused_and_the_first_one_stays(fed):
    copy = fed.base / "copy"
    shutil.copytree(fed.base / "CHUM", copy, ignore=shutil.ignore_patterns(".node-*"))
    file = copy / "center.yaml"
    own = {"key": str(copy / "keys" / "CHUM"), "health": f"127.0.0.1:{free_ports(1)[0]}"}
    file.write_text(OmegaConf.to_yaml(OmegaConf.merge(OmegaConf.load(file), OmegaConf.create(own))))
    fed._start("copy", "client", "start", "--center", str(file))
    said = ends(fed, "copy", within_s=120.0)
    assert TOLD in said and "another node with this key is connected now" in said and "Traceback" not in said
    assert is_in(fed) and fed.running["CHUM"].poll() is None


def test_a_deadline_that_nobody_met_is_told_as_that(fed):
    words = ("steps.tumour_ct.federation.deadline_s=0.5", "steps.tumour_ct.rounds=1")
    fed.start_run(one_step("hasty", *words, centers=("CHUM",)))
    with pytest.raises(FedgraftError) as failed:
        fed.finish_run(within_s=300.0)
    log = (fed.coordinator / "logs" / "executor.log").read_text()
    for said in (str(failed.value), log):
        assert "No center can train step 'tumour_ct': {'CHUM': 'no_reply'}" in said
        assert "did not answer within the step's deadline of 0.5 s: give steps.tumour_ct.federation.deadline_s" in said
    assert not Ledger(fed.run_folder("hasty").ledger).events("step_started")


def test_a_hospital_whose_key_was_taken_back_is_told_so(fed):
    """The last test: the node ends."""
    command("server", "enrol", str(fed.coordinator), "CHUM", "--refuse")
    said = ends(fed, "CHUM", within_s=300.0)
    assert TOLD in said and "it is not enrolled there, or not any more" in said and "Traceback" not in said
    assert not is_in(fed)
