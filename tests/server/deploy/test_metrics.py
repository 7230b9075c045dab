"""Metrics: read back by Prometheus' own parser, each value as the status has it."""

from prometheus_client.parser import text_string_to_metric_families

from server.deploy.metrics import write_metrics
from server.deploy.status import RunStatus, Status


def test_prometheus_reads_what_the_status_says(tmp_path):
    runs = [RunStatus("first", "running", "tumour_ct", 3, 12, 4096)]
    found = Status(True, "serving", 29.5, {"CHUM": "online", "MDA": "offline"}, runs)
    write_metrics(tmp_path / "fedgraft.prom", found)
    families = text_string_to_metric_families((tmp_path / "fedgraft.prom").read_text())
    values = {(s.name, *sorted(s.labels.items())): s.value for family in families for s in family.samples}
    step = (("run", "first"), ("step", "tumour_ct"))
    assert values == {
        ("fedgraft_serving",): 1.0,
        ("fedgraft_certificate_days",): 29.5,
        ("fedgraft_hospital_online", ("hospital", "CHUM")): 1.0,
        ("fedgraft_hospital_online", ("hospital", "MDA")): 0.0,
        ("fedgraft_round", *step): 3.0,
        ("fedgraft_rounds", *step): 12.0,
        ("fedgraft_message_bytes", ("run", "first")): 4096.0,
    }
