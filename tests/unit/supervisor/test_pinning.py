from hypothesis import given
from hypothesis import strategies as st

from sarrapipe.supervisor.pinning import cpus_for, numa_nodes, parse_cpu_list


def test_instance_i_runs_on_the_i_th_cpu_and_one_is_left_where_there_are_four():
    assert [cpus_for(i, "core", [2, 4, 6, 8], []) for i in range(1, 5)] == [{4}, {6}, {8}, {4}]
    assert [cpus_for(i, "core", [0, 1, 2], []) for i in range(1, 5)] == [{0}, {1}, {2}, {0}]


def test_two_cpus_or_fewer_are_shared_by_all():
    for usable in ([], [0], [0, 1]):
        assert cpus_for(1, "core", usable, []) == frozenset()


def test_off_is_off():
    assert cpus_for(1, "off", list(range(64)), []) == frozenset()


def test_numa_takes_a_whole_node_within_what_may_be_used():
    nodes = [frozenset(range(4)), frozenset(range(4, 8)), frozenset({99})]
    usable = [0, 1, 2, 3, 4, 5]
    assert [cpus_for(i, "numa", usable, nodes) for i in (1, 2, 3)] == [{1, 2, 3}, {4, 5}, {1, 2, 3}]


def test_one_node_is_nothing_to_choose_from():
    assert cpus_for(1, "numa", list(range(8)), [frozenset(range(8))]) == frozenset()


@given(st.integers(1, 500), st.sampled_from(["core", "numa", "off"]), st.sets(st.integers(0, 255)))
def test_never_a_cpu_that_may_not_be_used(number, mode, usable):
    nodes = [frozenset(range(128)), frozenset(range(128, 256))]
    assert cpus_for(number, mode, sorted(usable), nodes) <= usable


def test_kernel_lists():
    assert parse_cpu_list("0-3,8,10-11\n") == {0, 1, 2, 3, 8, 10, 11}
    assert parse_cpu_list("\n") == frozenset()


def test_nodes_of_a_system(tmp_path):
    for name, cpus in (("node0", "0-1"), ("node1", "2-3")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cpulist").write_text(cpus + "\n")
    assert numa_nodes(str(tmp_path / "node*/cpulist")) == [{0, 1}, {2, 3}]
    assert numa_nodes(str(tmp_path / "none*/cpulist")) == []
