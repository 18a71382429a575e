"""Responses of small synthetic rooms: takes a random generator, gives an impulse response. Pure, numpy only.

The image method of J. B. Allen and D. A. Berkley, "Image method for efficiently simulating small-room acoustics", 1979: a shoebox whose
walls reflect alike; each image of the source is an impulse, later and weaker by its distance and its reflections.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SOUND_SPEED = 343.0
SMALLEST, LARGEST = np.array([2.5, 2.5, 2.2]), np.array([6.0, 5.0, 3.0])
"""Bounds of a room's edges, metres."""

FASTEST, SLOWEST = 0.1, 0.35
"""Bounds of the time in which a room's sound falls by 60 dB, seconds."""

WALL = 0.3
"""Metres that speaker and microphone keep from the walls, at least."""

KEPT = 2 / 3
"""Share of that time that is computed: what comes later lies 40 dB below the direct sound."""


@dataclass(frozen=True)
class Room:
    """A shoebox: edges, places of speaker and microphone (metres from one corner), seconds until its sound has fallen by 60 dB."""

    edges: NDArray[np.float64]
    speaker: NDArray[np.float64]
    microphone: NDArray[np.float64]
    decay: float

    @property
    def reflection(self) -> float:
        """Share of the pressure that a wall gives back, by Sabine's formula for the decay."""
        x, y, z = self.edges
        absorbed = 0.161 * x * y * z / (2 * (x * y + y * z + x * z) * self.decay)
        return float(np.sqrt(1 - min(absorbed, 0.99)))


def draw_room(rng: np.random.Generator) -> Room:
    edges = rng.uniform(SMALLEST, LARGEST)
    return Room(edges, rng.uniform(WALL, edges - WALL), rng.uniform(WALL, edges - WALL), float(rng.uniform(FASTEST, SLOWEST)))


def response(room: Room, rate: int) -> NDArray[np.float64]:
    """The impulse response (n,) at `rate` Hz; it begins with the direct sound, which is 1."""
    farthest = KEPT * room.decay * SOUND_SPEED
    places, reflections = zip(*(_axis(room, axis, farthest) for axis in range(3)), strict=True)
    squares = [np.square(place - room.microphone[axis]) for axis, place in enumerate(places)]
    distance = np.sqrt(squares[0][:, None, None] + squares[1][:, None] + squares[2]).ravel()
    count = (reflections[0][:, None, None] + reflections[1][:, None] + reflections[2]).ravel()
    direct = np.linalg.norm(room.speaker - room.microphone)
    near = distance < farthest + direct
    delay = np.rint((distance[near] - direct) / SOUND_SPEED * rate).astype(int)
    return np.bincount(delay, room.reflection ** count[near] * direct / distance[near]).astype(np.float64)


def _axis(room: Room, axis: int, farthest: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Along one axis, the places of the images of the speaker, and how often each was reflected (eq. 8 of the paper)."""
    edge, place = room.edges[axis], room.speaker[axis]
    periods = np.arange(-int(farthest / (2 * edge)) - 1, int(farthest / (2 * edge)) + 2)
    images = np.concatenate([place + 2 * periods * edge, -place + 2 * periods * edge])
    return images, np.concatenate([2 * np.abs(periods), np.abs(periods - 1) + np.abs(periods)])
