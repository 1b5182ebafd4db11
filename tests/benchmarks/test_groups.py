"""Reports of several people in one picture."""

import pytest

from benchmarks.quality.groups import COUNTS, evaluate_groups
from benchmarks.quality.report import RECORD
from export.outputs import filling
from faceclip_serving.contract.variants.sdxl import NANO


@pytest.mark.proof
def test_a_report_knows_its_own_folder_and_is_made_in_it_again(tmp_path):
    for _ in range(2):
        with filling(tmp_path / "report", RECORD) as folder:
            found = evaluate_groups(NANO, 1, folder)
    assert found["by_people"].keys() == {str(count) for count in COUNTS}
    assert {file.name for file in (tmp_path / "report").iterdir()} == {RECORD, "people.png"}
