import jax.numpy as jnp
import numpy as np

from model.channels import (
    ChannelBlock,
    count_channels,
    forcing_blocks,
    input_blocks,
    stack_channels,
    target_blocks,
    unstack_channels,
)
from tests.model.tiny import TASK


def test_variables_are_alphabetical_and_statics_take_one_channel() -> None:
    assert [(b.variable, b.frames, b.levels) for b in input_blocks(TASK)] == [
        ("2m_temperature", 2, 0),
        ("day_progress_sin", 2, 0),
        ("land_sea_mask", 0, 0),
        ("temperature", 2, 2),
    ]
    assert count_channels(input_blocks(TASK)) == 2 + 2 + 1 + 4
    assert count_channels(forcing_blocks(TASK)) == 1
    assert count_channels(target_blocks(TASK)) == 1 + 2 + 1


def test_time_is_outside_level_within_a_variable() -> None:
    block = ChannelBlock(variable="temperature", frames=2, levels=3)
    # Value 100·time + 10·level + grid point.
    field = (
        100 * np.arange(2)[:, None, None, None]
        + 10 * np.arange(3)[:, None, None]
        + np.arange(4).reshape(2, 2)
    )
    got = stack_channels({"temperature": jnp.asarray(field)}, [block])
    np.testing.assert_array_equal(got[1], [1, 11, 21, 101, 111, 121])
    assert got.shape == (4, 6)


def test_unstacking_inverts_stacking_of_one_frame() -> None:
    random = np.random.default_rng(0)
    blocks = target_blocks(TASK)
    channels = jnp.asarray(random.normal(size=(6, count_channels(blocks))), jnp.float32)
    fields = unstack_channels(channels, blocks, shape=(2, 3))
    assert fields["temperature"].shape == (2, 2, 3)
    assert fields["2m_temperature"].shape == (2, 3)
    np.testing.assert_array_equal(stack_channels(fields, blocks), channels)
