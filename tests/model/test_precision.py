import jax.numpy as jnp
import numpy as np
import pytest

from model.errors import UnknownOptionError
from model.precision import cast_parameters, resolve_precision


@pytest.mark.parametrize(
    ("platform", "capability", "expected"),
    [("cpu", None, "float32"), ("tpu", None, "bfloat16"), ("gpu", 9.0, "bfloat16"), ("gpu", 7.5, "float16")],
)
def test_auto_takes_what_the_device_is_good_at(
    platform: str, capability: float | None, expected: str
) -> None:
    assert resolve_precision("auto", platform=platform, compute_capability=capability) == expected


def test_named_precision_is_kept_and_an_unknown_one_refused() -> None:
    assert resolve_precision("float16", platform="cpu") == "float16"
    with pytest.raises(
        UnknownOptionError, match="expected one of auto, float32, bfloat16, float16, got 'fp8'"
    ):
        resolve_precision("fp8", platform="cpu")


def test_parameters_are_cast() -> None:
    cast = cast_parameters({"m": {"w": np.ones(2)}}, "bfloat16")
    assert cast["m"]["w"].dtype == jnp.bfloat16
