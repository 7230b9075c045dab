"""Which methods a step's federation asks for: a closed list, one name each."""

import pytest

from client.methods import METHODS, methods_of
from client.methods.drift.ditto import Ditto
from client.methods.drift.feddyn import FedDyn
from client.methods.drift.local import Local
from client.methods.drift.proximal import Proximal
from client.methods.drift.scaffold import Scaffold
from client.vault.vault import Vault
from common.config.federation import FedAdamFederation, FedDynFederation, MeanFederation, ScaffoldFederation
from common.config.methods import METHODS as SPECS
from common.config.methods import methods_asked
from common.config.methods.drift import DittoMethod, LocalMethod, ProximalMethod
from common.config.step import Step
from common.protocol.declaration import keeps_state, local_tensors

ASKED = {
    "a plain mean": (MeanFederation(), []),
    "an optimizer of the server's": (FedAdamFederation(), []),
    "FedProx": (MeanFederation(proximal=0.1), [Proximal]),
    "SCAFFOLD": (ScaffoldFederation(), [Scaffold]),
    "FedDyn": (FedDynFederation(), [FedDyn]),
    "FedBN": (MeanFederation(local=["*/norm*"]), [Local]),
    "Ditto without a pull": (MeanFederation(personal=0.0), [Ditto]),
    "SCAFFOLD with a personal model": (ScaffoldFederation(personal=0.1), [Scaffold, Ditto]),
}


@pytest.mark.parametrize("name", ASKED)
def test_a_federation_names_its_methods(bench, tmp_path, name):
    spec, expected = ASKED[name]
    assert [
        type(method) for method in methods_of(Step(federation=spec), Vault(tmp_path, bench.order(spec)))
    ] == expected
    assert not list(tmp_path.iterdir())


LISTED = {  # a step that lists the method -> the federation that asks for the same
    "ditto": ([DittoMethod(0.5)], MeanFederation(personal=0.5)),
    "local": ([LocalMethod(["*/norm*"])], MeanFederation(local=["*/norm*"])),
    "proximal": ([ProximalMethod(0.1)], MeanFederation(proximal=0.1)),
}


def test_every_kind_has_options_and_a_method_and_is_in_order():
    assert list(METHODS) == sorted(METHODS) == sorted(SPECS)


@pytest.mark.parametrize("kind", LISTED)
def test_listed_or_asked_for_by_the_federation_a_method_is_the_same(bench, tmp_path, kind):
    listed, federation = LISTED[kind]
    steps = [Step(name="s", methods=listed, federation=MeanFederation()), Step(name="s", federation=federation)]
    assert methods_asked(steps[0]) == methods_asked(steps[1]) == listed
    one, two = (methods_of(step, Vault(tmp_path, bench.order(step.federation))) for step in steps)
    assert [type(method) for method in one] == [type(method) for method in two]
    assert keeps_state(steps[0]) == keeps_state(steps[1]) == (kind != "proximal")
    names = ["head/norm/weight", "head/out/weight"]
    assert local_tensors(names, steps[0]) == local_tensors(names, steps[1])


def test_a_step_that_lists_two_methods_gets_both_in_their_order(bench, tmp_path):
    step = Step(name="s", methods=[DittoMethod(), ProximalMethod()], federation=ScaffoldFederation())
    found = methods_of(step, Vault(tmp_path, bench.order(step.federation)))
    assert [type(method) for method in found] == [Scaffold, Ditto, Proximal]
