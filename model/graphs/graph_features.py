"""Spatial features of nodes and edges, from positions alone.

A node is described by cos θ, cos φ, sin φ (θ polar angle, φ longitude). An edge is described by its length and
by the position of its sender relative to its receiver, in coordinates turned so that the receiver lies at
latitude 0, longitude 0: x points up, y east, z north. Both are divided by the longest edge of the graph (Lam et
al. 2023, *Science* 382, supplement 3.2).
"""

from __future__ import annotations

import numpy as np


def node_features(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """cos θ, cos φ, sin φ of each node, float32, shape (node, 3).

    Args:
        latitude: degrees north, float32, shape (node,).
        longitude: degrees east, float32, shape (node,).
    """
    azimuth, polar_angle = _angles(latitude, longitude)
    return np.stack([np.cos(polar_angle), np.cos(azimuth), np.sin(azimuth)], axis=-1)


def edge_features(
    *,
    sender_latitude: np.ndarray,
    sender_longitude: np.ndarray,
    receiver_latitude: np.ndarray,
    receiver_longitude: np.ndarray,
    senders: np.ndarray,
    receivers: np.ndarray,
    normalization: float | None = None,
) -> np.ndarray:
    """Length and relative position of each edge in its receiver's frame, float32, shape (edge, 4).

    Args:
        sender_latitude, sender_longitude: degrees, float32, shape (sender node,).
        receiver_latitude, receiver_longitude: degrees, float32, shape (receiver node,).
        senders, receivers: node numbers, shape (edge,).
        normalization: length to divide by, as a chord of the unit sphere; None for the longest edge.
    """
    azimuth, polar_angle = _angles(receiver_latitude, receiver_longitude)
    tilt = -polar_angle + np.pi / 2
    cos_azimuth, sin_azimuth = _cos_sin(azimuth, receivers)
    cos_tilt, sin_tilt = _cos_sin(tilt, receivers)
    offset = (
        _positions(sender_latitude, sender_longitude)[senders].astype(np.float64)
        - _positions(receiver_latitude, receiver_longitude)[receivers]
    )
    towards_receiver = cos_azimuth * offset[:, 0] + sin_azimuth * offset[:, 1]
    local = np.stack(
        [
            cos_tilt * towards_receiver + sin_tilt * offset[:, 2],
            cos_azimuth * offset[:, 1] - sin_azimuth * offset[:, 0],
            cos_tilt * offset[:, 2] - sin_tilt * towards_receiver,
        ],
        axis=-1,
    )
    length = np.linalg.norm(local, axis=-1, keepdims=True)
    scale = length.max() if normalization is None else normalization
    return (np.concatenate([length, local], axis=-1) / scale).astype(np.float32)


def latitude_longitude(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Latitude and longitude (0…360) in degrees, float32, of points of the unit sphere, shape (node, 3)."""
    x, y, z = positions.T
    latitude = 90 - np.rad2deg(np.arccos(np.clip(z, -1, 1)))
    return latitude.astype(np.float32), np.mod(np.rad2deg(np.arctan2(y, x)), 360).astype(np.float32)


def _angles(latitude: np.ndarray, longitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.deg2rad(longitude), np.deg2rad(90 - latitude)


def _positions(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    azimuth, polar_angle = _angles(latitude, longitude)
    return np.stack(
        [np.cos(azimuth) * np.sin(polar_angle), np.sin(azimuth) * np.sin(polar_angle), np.cos(polar_angle)],
        axis=-1,
    )


def _cos_sin(angle: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    angle = angle.astype(np.float64)
    return np.cos(angle)[numbers], np.sin(angle)[numbers]
