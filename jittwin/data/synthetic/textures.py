"""Procedural surfaces for the synthetic landscapes: noise, light, and one texture per class.

Coordinates: u runs right in units of the picture height, v runs down from 0 to 1, so the
same seed gives the same scene at any resolution. Colours are float32 RGB in 0..1. Only
element-wise arithmetic is used, so that the number of BLAS threads does not change a scene.
"""
from functools import cached_property

import numpy as np


def value_noise(rng, rows, columns, cells_v, cells_u) -> np.ndarray:
    """(rows, columns) smooth noise in 0..1 from a random lattice of cells_v by cells_u cells."""
    lattice = rng.random((cells_v + 2, cells_u + 2), dtype=np.float32)
    for axis, (size, cells) in enumerate(((rows, cells_v), (columns, cells_u))):
        at = np.linspace(0, cells, size, dtype=np.float32)
        low = at.astype(int)
        t = at - low
        t = (t * t * (3 - 2 * t)).reshape((-1, 1) if axis == 0 else (1, -1))
        start, stop = lattice.take(low, axis), lattice.take(low + 1, axis)
        lattice = start + (stop - start) * t
    return lattice


def fractal(rng, rows, columns, cells_v, cells_u, octaves=4, gain=0.5) -> np.ndarray:
    """Sum of octaves of value noise, with mean 0.5, stretched to about 0..1."""
    total, weight, sum_of_weights = np.zeros((rows, columns), np.float32), 1.0, 0.0
    for octave in range(octaves):
        total += weight * value_noise(rng, rows, columns, cells_v << octave, cells_u << octave)
        sum_of_weights += weight
        weight *= gain
    return np.clip((total / sum_of_weights - 0.5) * 1.6 + 0.5, 0, 1)


def mix(first, second, t) -> np.ndarray:
    """Blend of two colours; t is the weight of the second, without the channel axis."""
    first, second = np.asarray(first, np.float32), np.asarray(second, np.float32)
    return first + (second - first) * np.asarray(t, np.float32)[..., None]


def step(value, edge=0.0, width=0.1) -> np.ndarray:
    """0 below `edge`, 1 above `edge + width`, linear between."""
    return np.clip((value - edge) / width, 0, 1)


class Fields:
    """Noise shared by all textures of one scene; each field is made when it is first used."""

    def __init__(self, rng, rows, columns):
        self.rng, self.shape = rng, (rows, columns)

    def _fractal(self, cells_v, cells_u, octaves, gain=0.5):
        return fractal(self.rng, *self.shape, cells_v, cells_u, octaves, gain)

    @cached_property
    def clouds(self):
        """Large billows, displaced at random so that the lattice of the noise is not visible."""
        rows, columns = self.shape
        sway, lift = (((value_noise(self.rng, rows, columns, 6, 7) - 0.5) * rows * 0.16).astype(int)
                      for _ in range(2))
        down = np.clip(np.arange(rows)[:, None] + lift, 0, rows - 1)
        return self._fractal(4, 3, 5)[down, np.clip(np.arange(columns) + sway, 0, columns - 1)]

    @cached_property
    def clumps(self):
        return self._fractal(12, 16, 3, 0.7)

    @cached_property
    def grain(self):
        return value_noise(self.rng, *self.shape, 100, 130)

    @cached_property
    def blades(self):
        return value_noise(self.rng, *self.shape, 45, 160)

    @cached_property
    def ripples(self):
        return self._fractal(40, 7, 2, 0.8)

    @cached_property
    def ridges(self):
        return 1 - np.abs(2 * self._fractal(5, 6, 4, 0.55) - 1)

    @cached_property
    def strands(self):
        return value_noise(self.rng, *self.shape, 5, 120)

    @cached_property
    def relief(self):
        """Brightness, around 0.5, of the ridged surface under a sun at the upper left."""
        rows, columns = self.shape
        height, reach = self.ridges, max(1, rows // 90)
        slope = height - np.roll(height, (reach, reach), (0, 1))
        return np.clip(0.5 + slope * 2.2, 0, 1)


def sky(c):
    away = np.clip(1 - c.v / max(c.horizon, 0.3), 0, 1) + 0 * c.u
    colour = mix(c.mood.low, c.mood.high, away ** 0.8)
    glow = np.exp(-((c.u - c.sun[0]) ** 2 + (c.v - c.sun[1]) ** 2) / 0.02)
    disc = step(0.028 - np.hypot(c.u - c.sun[0], c.v - c.sun[1]), 0, 0.006)
    colour = mix(colour, (1, 0.96, 0.8), np.maximum(0.55 * glow, disc))
    cover = step(c.field.clouds, 0.62 - 0.22 * c.mood.cloud, 0.3)
    shade = mix(np.float32(c.mood.low) * 0.86, (1, 1, 1), step(c.field.clouds, 0.4, 0.5))
    return mix(colour, shade, cover * (0.35 + 0.65 * away) * 0.85)


def mountain(c):
    rock = mix((0.27, 0.25, 0.32), (0.62, 0.58, 0.62), c.field.relief)
    snow = mix((0.60, 0.68, 0.85), (1, 1, 1), step(c.field.relief, 0.25, 0.5))
    colour = mix(rock, snow, step(c.snowline - c.v + 0.22 * (c.field.clumps - 0.5), 0, 0.02))
    return mix(colour, c.mood.low, 0.30 + 0.25 * step(c.v, 0.2, 0.5))


def hill(c):
    colour = mix((0.38, 0.44, 0.22), (0.62, 0.68, 0.36), 0.6 * c.field.clouds + 0.4 * c.field.clumps)
    return mix(colour, c.mood.low, 0.18)


def rock(c):
    colour = mix((0.20, 0.19, 0.19), (0.62, 0.58, 0.54), c.field.relief)
    colour = mix(colour, (0.13, 0.12, 0.12), step(c.field.ridges, 0.93, 0.05) * 0.8)
    return mix(colour, (0.45, 0.50, 0.25), 0.35 * step(c.field.clumps, 0.66, 0.1))


def tree(c):
    leaves = np.clip(0.55 * c.field.clumps + 0.45 * c.field.grain, 0, 1)
    return mix((0.03, 0.13, 0.06), (0.20, 0.42, 0.13), step(leaves, 0.2, 0.6))


def plant(c):
    colour = mix((0.18, 0.40, 0.10), (0.66, 0.86, 0.26), 0.35 * c.field.clumps + 0.65 * c.field.blades)
    flower = mix((0.98, 0.45, 0.66), (1.0, 0.93, 0.35), step(c.field.clouds, 0.5, 0.1))
    return mix(colour, flower, step(c.field.grain, 0.80, 0.05))


def grass(c):
    colour = mix((0.20, 0.42, 0.10), (0.50, 0.74, 0.22), 0.5 * c.field.blades + 0.5 * c.field.clumps)
    return mix(colour, (0.60, 0.74, 0.30), 0.4 * step(c.depth, 0.55, 0.45))


def field(c):
    furrow = np.sin((c.u - c.vanish) / (c.v - c.horizon + 0.06) * 26)
    colour = mix((0.66, 0.50, 0.12), (0.96, 0.82, 0.34), 0.5 + 0.5 * furrow)
    return mix(colour, (0.80, 0.66, 0.22), 0.6 * c.field.clumps)


def earth(c):
    colour = mix((0.24, 0.13, 0.07), (0.52, 0.32, 0.18), 0.5 * c.field.clumps + 0.5 * c.field.grain)
    return mix(colour, (0.16, 0.09, 0.05), 0.5 * step(c.field.ridges, 0.9, 0.08))


def land(c):
    colour = mix((0.62, 0.42, 0.24), (0.82, 0.64, 0.42), c.field.clouds)
    crack = step(np.abs(c.field.clumps - 0.5), 0.0, 0.035)
    return mix((0.46, 0.29, 0.16), colour, 0.35 + 0.65 * crack)


def sand(c):
    wave = np.sin((c.v + 0.06 * c.field.clouds + 0.02 * c.field.ripples) * 170 * (1.15 - 0.6 * c.v))
    colour = mix((0.82, 0.70, 0.46), (0.98, 0.90, 0.68), 0.5 + 0.28 * wave + 0.3 * (c.field.grain - 0.5))
    return mix(colour, (0.90, 0.80, 0.56), 0.5 * c.field.clouds)


def sea(c):
    colour = mix((0.02, 0.16, 0.36), (0.22, 0.44, 0.66), step(c.depth, 0.2, 0.9))
    colour = mix(colour, (0.01, 0.10, 0.28), 0.55 * step(c.field.ripples, 0.5, 0.3))
    return mix(colour, (0.95, 0.98, 1.0), step(c.field.ripples + 0.25 * c.field.grain, 1.02, 0.06))


def water(c):
    colour = mix((0.22, 0.66, 0.68), (0.62, 0.90, 0.88), c.field.ripples)
    return mix(colour, (0.90, 1.0, 0.98), step(c.field.ripples * c.field.grain, 0.5, 0.2))


def river(c):
    colour = mix((0.16, 0.40, 0.42), (0.36, 0.62, 0.62), c.field.ripples)
    return mix(colour, (0.80, 0.92, 0.92), 0.7 * step(c.field.ripples + 0.3 * c.field.clumps, 0.98, 0.1))


def lake(c):
    """The scene above the shore, mirrored and distorted by ripples."""
    rows, columns = c.scene.shape[:2]
    shore = int(c.horizon * rows)
    mirrored = np.clip(2 * shore - (c.v[:, 0] * rows).astype(int), 0, rows - 1)
    sway = ((c.field.ripples - 0.5) * columns * 0.05 * np.clip(c.v - c.horizon + 0.1, 0, 1)).astype(int)
    across = np.clip(np.arange(columns) + sway, 0, columns - 1)
    colour = mix(c.scene[mirrored[:, None], across], (0.07, 0.20, 0.42), 0.58)
    return mix(colour, (0.55, 0.70, 0.88), 0.35 * step(c.field.ripples, 0.62, 0.2))


def waterfall(c):
    return mix((0.60, 0.74, 0.84), (1, 1, 1), step(c.field.strands + 0.2 * c.field.grain, 0.25, 0.5))


def path(c):
    colour = mix((0.66, 0.56, 0.44), (0.88, 0.80, 0.68), 0.4 * c.field.clumps + 0.6 * c.field.grain)
    return mix(colour, (0.52, 0.42, 0.32), step(c.field.grain, 0.86, 0.06))


def road(c):
    return mix((0.18, 0.18, 0.21), (0.31, 0.31, 0.35), 0.5 * c.field.grain + 0.5 * c.field.clumps)


def brick(c, low=(0.50, 0.22, 0.16), high=(0.72, 0.38, 0.28), joint=(0.80, 0.74, 0.68), rows=56):
    course = np.floor(c.v * rows)
    across = c.u * rows * 0.45 + 0.5 * (course % 2)
    mortar = (c.v * rows % 1 < 0.2) | (across % 1 < 0.1)
    tone = np.sin(course * 12.9 + np.floor(across) * 78.2) * 0.5 + 0.5
    return np.where(mortar[..., None], np.float32(joint), mix(low, high, tone))
