import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.training.curriculum import Curriculum, ExampleOrder, Stage


def curriculum() -> Curriculum:
    return Curriculum(
        stages=(
            Stage(updates=3, batch_size=4),
            Stage(updates=2, rollout_steps=2, batch_size=1, accumulate=2),
        )
    )


def test_stages_follow_each_other() -> None:
    lengths = [curriculum().stage_of(update).rollout_steps for update in range(5)]

    assert lengths == [1, 1, 1, 2, 2]


def test_there_is_no_stage_after_the_last_update() -> None:
    with pytest.raises(ValueError, match="expected 0 to 4, got 5"):
        curriculum().stage_of(5)


def test_examples_are_counted_over_stages() -> None:
    # 4 an update for three updates, then 1 × 2.
    assert [curriculum().examples_before(update) for update in range(7)] == [0, 4, 8, 12, 14, 16, 16]


@given(examples=st.integers(1, 9), first=st.integers(0, 40), count=st.integers(1, 30), cut=st.integers(0, 30))
@settings(max_examples=25, deadline=None)
def test_the_order_does_not_depend_on_how_it_is_cut(examples: int, first: int, count: int, cut: int) -> None:
    order = ExampleOrder(seed=3, examples=examples)
    cut = min(cut, count)

    whole = order.numbers(first, count)
    parts = np.concatenate([order.numbers(first, cut), order.numbers(first + cut, count - cut)])

    np.testing.assert_array_equal(whole, parts)


@given(examples=st.integers(1, 20), epoch=st.integers(0, 5))
@settings(max_examples=15, deadline=None)
def test_every_example_comes_once_an_epoch(examples: int, epoch: int) -> None:
    numbers = ExampleOrder(seed=1, examples=examples).numbers(epoch * examples, examples)

    assert sorted(numbers) == list(range(examples))


def test_epochs_and_seeds_differ() -> None:
    order = ExampleOrder(seed=1, examples=50)

    assert (order.numbers(0, 50) != order.numbers(50, 50)).any()
    assert (order.numbers(0, 50) != ExampleOrder(seed=2, examples=50).numbers(0, 50)).any()


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="warmup_updates"):
        Stage(updates=5, warmup_updates=5)
    with pytest.raises(ValueError, match="rollout_steps"):
        Stage(updates=5, rollout_steps=0)
    with pytest.raises(ValueError, match="final_learning_rate"):
        Stage(updates=5, peak_learning_rate=1e-3, final_learning_rate=1e-2)
    with pytest.raises(ValueError, match="stages"):
        Curriculum(stages=())


def test_one_member_is_no_ensemble() -> None:
    with pytest.raises(ValueError, match="expected 0, or 2 or more, got 1"):
        Stage(updates=1, ensemble_members=1)
