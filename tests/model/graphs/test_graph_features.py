import numpy as np
import pytest

from model.graphs.graph_features import edge_features, latitude_longitude, node_features


def test_node_features_of_known_points() -> None:
    got = node_features(np.float32([90, 0, -90]), np.float32([0, 90, 180]))
    np.testing.assert_allclose(got, [[1, 1, 0], [0, 0, 1], [-1, -1, 0]], atol=1e-6)


def test_relative_position_is_up_east_north_at_the_receiver() -> None:
    # Receiver at 60°N 30°E. A sender ε further north lies at (−ε²/2, 0, ε); one ε east at (−ε²c²/2, εc, …).
    step = 0.01
    degrees = np.rad2deg(step)
    got = edge_features(
        sender_latitude=np.float32([60 + degrees, 60]),
        sender_longitude=np.float32([30, 30 + degrees]),
        receiver_latitude=np.float32([60]),
        receiver_longitude=np.float32([30]),
        senders=np.array([0, 1]),
        receivers=np.array([0, 0]),
        normalization=1.0,
    )
    np.testing.assert_allclose(got[0], [step, -(step**2) / 2, 0, step], atol=2e-6)
    east = step * np.cos(np.pi / 3)
    assert got[1, 2] == pytest.approx(east, abs=2e-6)
    assert got[1, 3] == pytest.approx(step**2 * np.sin(np.pi / 3) * np.cos(np.pi / 3) / 2, abs=2e-6)


def test_longest_edge_normalizes_where_no_length_is_given() -> None:
    got = edge_features(
        sender_latitude=np.float32([10, 20]),
        sender_longitude=np.float32([0, 0]),
        receiver_latitude=np.float32([0]),
        receiver_longitude=np.float32([0]),
        senders=np.array([0, 1]),
        receivers=np.array([0, 0]),
    )
    assert got[1, 0] == pytest.approx(1.0)
    assert got[0, 0] == pytest.approx(np.sin(np.deg2rad(5)) / np.sin(np.deg2rad(10)), rel=1e-5)


def test_latitude_longitude_inverts_positions() -> None:
    latitude, longitude = latitude_longitude(np.float32([[0, 0, 1], [0, -1, 0], [0.5, 0.5, np.sqrt(0.5)]]))
    np.testing.assert_allclose(latitude, [90, 0, 45], atol=1e-4)
    np.testing.assert_allclose(longitude[1:], [270, 45], atol=1e-4)
