from dataclasses import replace

from model.graphcast import ModelConfig
from model.grid import Grid
from model.rollout.memory import memory_needed
from tests.model.tiny import checkpoint

SMALL = ModelConfig(
    resolution=1.0,
    mesh_size=5,
    latent_size=512,
    gnn_msg_steps=16,
    hidden_layers=1,
    radius_query_fraction_edge_length=0.6,
)


def test_graphcast_small_needs_a_few_gigabytes_and_half_in_half_precision() -> None:
    file = replace(checkpoint(), config=SMALL)
    full, half = (memory_needed(file, Grid(resolution=1.0), precision=p) for p in ("float32", "bfloat16"))
    assert 1e9 < full < 4e9
    assert 0.45 < half / full < 0.7


def test_members_add_weather_and_activations_but_not_weights() -> None:
    file = checkpoint()
    one, two, three = (
        memory_needed(file, Grid(resolution=30.0), precision="float32", members=m) for m in (1, 2, 3)
    )
    assert two - one == three - two
    assert two < 2 * one
