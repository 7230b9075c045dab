"""A machine's own addresses never go through a proxy, whatever the hospital has set."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest

from common.runtime.offline import LOOPBACK, without_proxy
from common.runtime.processes import environment


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"NO_PROXY": "pacs.local"},
        {"no_proxy": "a, b"},
        {"NO_PROXY": "a", "no_proxy": "b"},
        {"NO_PROXY": "127.0.0.1"},
    ],
    ids=str,
)
def test_loopback_is_added_and_nothing_is_taken_away(given):
    found = without_proxy(given)
    assert found["no_proxy"] == found["NO_PROXY"]
    hosts = found["no_proxy"].split(",")
    assert len(hosts) == len(set(hosts)) and {*LOOPBACK} <= {*hosts}
    assert {name.strip() for text in given.values() for name in text.split(",")} <= {*hosts}
    assert all(urllib.request.proxy_bypass_environment(name, {"no": found["no_proxy"]}) for name in LOOPBACK[:2])


def test_no_proxy_at_all_stays_so():
    assert without_proxy({"no_proxy": "*", "NO_PROXY": "a"}) == {"no_proxy": "*", "NO_PROXY": "*"}


def test_every_process_that_is_started_has_it(monkeypatch, tmp_path):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", "pacs.local")
    monkeypatch.delenv("no_proxy", raising=False)
    child = environment(Path(tmp_path), {})
    assert child["no_proxy"] == "pacs.local,127.0.0.1,localhost,::1" and child["HTTPS_PROXY"] == "http://proxy:3128"
