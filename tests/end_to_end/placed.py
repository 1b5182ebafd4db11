"""Every placement of a family, served by a real server: emulated where its card is not here, within its own bounds.

A family has a file of its own, `test_placements_<family>.py`: its server has some 80 processes, and files run side by side.
"""

from collections.abc import Mapping

import pytest

from benchmarks.placements.cases import CASES, Served, all_served, cancels, refuses_larger, require_alike
from faceclip.status import server_status
from faceclip_serving.contract.placements import placements
from faceclip_serving.contract.variants.variant import Variant


def pytest_generate_tests(metafunc):
    if "name" in metafunc.fixturenames:
        metafunc.parametrize("name", list(placements(metafunc.cls.variant)))


@pytest.mark.proof
class Placements:
    """The tests; a subclass names the variant."""

    variant: Variant

    @pytest.fixture(scope="class")
    def served(self, repository, tmp_path_factory):
        """Placement -> it, on one server. It is up, so the probe's guided request with a face was served by each."""
        with all_served(self.variant, tmp_path_factory.mktemp(self.variant.name)) as found:
            yield found

    @pytest.fixture(scope="class")
    def pictures(self, served: Mapping[str, Served]):
        """Placement -> the pictures of each case, made when first asked for."""
        made = {}

        def of(name):
            if name not in made:
                made[name] = {case: CASES[case].run(served[name]) for case in CASES}
            return made[name]

        return of

    def test_every_kind_of_request_is_served(self, pictures, name):
        assert pictures(name).keys() == CASES.keys()

    def test_one_step_beyond_the_largest_side_is_refused_and_a_cancelled_stream_leaves(self, served, name):
        refuses_larger(served[name])
        cancels(served[name])

    def test_the_server_tells_what_is_emulated(self, served, name):
        found = served[name]
        real = placements(self.variant)[name].components
        on_cards = {part for part, execution in real.items() if execution.runtime.instance_kind == "KIND_GPU"}
        (offered,) = [each for each in server_status(found.pipe._transport).offered if each.model == found.pipe.config.model]
        assert offered.placement == name and offered.emulated.keys() == on_cards
        for part in on_cards:
            assert offered.emulated[part].endswith(f"for {real[part].precision} on {real[part].runtime.name}")

    @pytest.mark.parametrize("case", [case for case in CASES if CASES[case].sides is None])
    def test_a_picture_does_not_depend_on_how_many_rows_a_call_takes(self, pictures, case):
        """Some take the halves of guidance one after the other, others together with those of other requests."""
        of = placements(self.variant)
        assert require_alike({name: pictures(name)[case] for name in of}, of)
