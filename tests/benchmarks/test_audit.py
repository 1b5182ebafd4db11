"""The measurement of the audit log, in small: every kind of tampering, a crash."""

from benchmarks.audit.command import measure_audit


def test_a_small_log_is_measured():
    found = measure_audit(60, 4)
    assert found["records"] == 60 and found["whole"] and all(found["tampering"].values())
    assert found["crash"]["whole"] and found["crash"]["records"] >= found["crash"]["acknowledged"] >= 500
