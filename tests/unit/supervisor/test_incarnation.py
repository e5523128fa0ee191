import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarrapipe.errors import SupervisorError
from sarrapipe.supervisor.incarnation import IncarnationCounter


@given(st.lists(st.integers(0, 600), min_size=1, max_size=6))
@settings(max_examples=30)
def test_no_number_comes_twice_over_any_number_of_killed_parents(tmp_path_factory, starts):
    path = str(tmp_path_factory.mktemp("i") / "incarnation")
    taken = []
    for count in starts:
        counter = IncarnationCounter(path)
        counter.open()
        taken += [counter.take() for _ in range(count)]
        # And then the parent is killed: nothing is written at the end.
    assert len(set(taken)) == len(taken)
    assert taken == sorted(taken)
    assert all(number > 0 for number in taken)


def test_a_file_without_a_number_is_a_persons_to_mend(tmp_path):
    path = tmp_path / "incarnation"
    for content in ("", "x", "-3", "³"):
        path.write_text(content)
        with pytest.raises(SupervisorError, match="incarnation"):
            IncarnationCounter(str(path)).open()


def test_a_file_that_cannot_be_written_says_which(tmp_path):
    counter = IncarnationCounter(str(tmp_path / "missing" / "incarnation"))
    counter.open()
    with pytest.raises(SupervisorError, match="missing"):
        counter.take()


def test_a_half_written_new_bound_does_no_harm(tmp_path):
    path = tmp_path / "incarnation"
    first = IncarnationCounter(str(path))
    first.open()
    first.take()
    (tmp_path / "incarnation.new").write_text("garb")
    second = IncarnationCounter(str(path))
    second.open()
    assert second.take() > 256 - 1
