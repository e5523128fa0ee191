"""Names of block files, as the library humanize and v2 make them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sarrapipe.message.blocknames import block_name, root_name

# What humanize 4.x says for naturalsize(n, binary=True), lower case, without the blank.
HUMAN = {
    1: "1byte",
    200: "200bytes",
    1000: "1000bytes",
    1023: "1023bytes",
    1024: "1.0kib",
    4096: "4.0kib",
    1_000_000: "976.6kib",
    1_048_575: "1.0mib",
    1_048_576: "1.0mib",
    1_234_567: "1.2mib",
    50 << 20: "50.0mib",
    1 << 30: "1.0gib",
    1 << 40: "1.0tib",
}


@pytest.mark.parametrize(("size", "human"), HUMAN.items())
def test_a_block_file_is_named_as_sr3_names_it(size, human):
    assert block_name("d/f.bin", 12, size) == f"d/f.bin§block_0012,{human}_§"


@pytest.mark.parametrize(
    "name",
    ["a/b", "a/b§block_manifest§", "a/b.Part", "a/§block_1_§/b", "a.1000.3.560.1.d.Part/b", "x§block_0001_§"],
)
def test_other_names_stay(name):
    assert root_name(name) == name


def test_a_v2_part_belongs_to_its_file():
    assert root_name("20231114/SOURCE/big.bin.1000.3.560.1.d.Part") == "20231114/SOURCE/big.bin"


@given(st.text(min_size=1), st.integers(0, 10**6), st.integers(1, 2**62))
def test_the_root_of_a_block_name_is_the_file(path, number, size):
    assert root_name(block_name(path, number, size)) == path
