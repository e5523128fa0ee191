"""The window of publisher confirms: every message is settled once, in the order of publishing."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sarrapipe.broker.window import ConfirmWindow


@settings(max_examples=300)
@given(
    st.lists(
        st.one_of(st.just(None), st.tuples(st.integers(0, 40), st.booleans())),
        max_size=80,
    )
)
def test_against_a_list(steps):
    window = ConfirmWindow()
    model = {}
    published = 0
    for step in steps:
        if step is None:
            published += 1
            assert window.add(f"m{published}") == published
            model[published] = f"m{published}"
        else:
            number, multiple = step
            if multiple:
                numbers = [each for each in model if each <= number or number == 0]
            else:
                numbers = [number] if number in model else []
            assert window.settle(number, multiple=multiple) == [model.pop(each) for each in numbers]
        assert len(window) == len(model)
        assert window.numbered() == list(model.items())
    assert window.fail_all() == list(model.values())
    assert len(window) == 0


def test_a_lost_channel_gives_back_everything_once():
    window = ConfirmWindow()
    for token in range(5):
        window.add(token)
    window.settle(2, multiple=False)
    assert window.fail_all() == [0, 2, 3, 4]
    assert window.fail_all() == []
    assert window.settle(5, multiple=True) == []
