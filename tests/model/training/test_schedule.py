import numpy as np

from model.training.curriculum import Curriculum, Stage
from model.training.schedule import learning_rate


def test_warm_up_and_half_cosine() -> None:
    stage = Stage(updates=10, peak_learning_rate=1.0, final_learning_rate=0.2, warmup_updates=2)

    rates = [float(learning_rate(Curriculum(stages=(stage,)), update)) for update in (0, 1, 2, 4, 6, 8)]

    # (k + 1)/2 while warming up; then 0.2 + 0.8 · (1 + cos(π(k − 2)/8))/2: 1, cos 45°, cos 90°, cos 135°.
    half = np.sqrt(0.5)
    expected = [0.5, 1.0, 1.0, 0.2 + 0.4 * (1 + half), 0.6, 0.2 + 0.4 * (1 - half)]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_every_stage_has_its_own() -> None:
    stages = (
        Stage(updates=4, peak_learning_rate=1.0),
        Stage(updates=2, peak_learning_rate=0.1, final_learning_rate=0.05),
    )

    rates = [float(learning_rate(Curriculum(stages=stages), update)) for update in (0, 2, 4, 5, 6, 100)]

    np.testing.assert_allclose(rates, [1.0, 0.5, 0.1, 0.075, 0.05, 0.05], rtol=1e-6)
