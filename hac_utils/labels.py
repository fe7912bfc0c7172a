"""Where labels go: each near its point, none on another, joined by a thin line where it must stand off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.lines import Line2D

_ANGLES = np.deg2rad([0, 180, 90, 270, 45, 135, 225, 315, 22, 158, 202, 338, 68, 112, 248, 292])


class SpreadLabels(Artist):
    """Moves the labels of points apart just before they are drawn, at the size they are drawn at.

    Deterministic: the most crowded point first takes the nearest free place around itself, then each
    label is tried again with all the others in place. A thin line joins a label to a far point.
    """

    def __init__(
        self,
        notes: Sequence[Any],
        radii: np.ndarray,
        obstacles: Sequence[Artist],
        lines: Sequence[Line2D] = (),
    ) -> None:
        super().__init__()
        self.notes, self.radii, self.obstacles = list(notes), np.asarray(radii, float), list(obstacles)
        self.lines = list(lines)
        self.leaders = [Line2D([], [], color="#6B6B6B", lw=0.7, transform=None, zorder=2.5) for _ in self.notes]
        self.set_zorder(2.9)
        self.set_in_layout(False)
        for note in self.notes:
            note.set_in_layout(False)

    def draw(self, renderer: Any) -> None:
        scale = renderer.points_to_pixels(1.0)
        points = np.array([self.axes.transData.transform(n.xy) for n in self.notes])
        sizes = []
        for note in self.notes:
            box = note.get_window_extent(renderer)
            sizes.append((box.width + 3 * scale, box.height + 1.5 * scale))
        frame = self.axes.get_window_extent(renderer)
        blocked = [b.get_window_extent(renderer) for b in self.obstacles]
        blocked = [(b.x0 - 4 * scale, b.y0 - 4 * scale, b.x1 + 4 * scale, b.y1 + 4 * scale) for b in blocked]
        drawn = [line.get_transform().transform(line.get_xydata()) for line in self.lines]
        centres = spread(
            points,
            np.array(sizes),
            self.radii * scale,
            (frame.x0, frame.y0, frame.x1, frame.y1),
            blocked,
            np.concatenate([np.empty((0, 2)), *drawn]),
        )
        for note, point, centre in zip(self.notes, points, centres, strict=True):
            note.set_position((centre - point) / scale)
        for leader, point, centre, size, radius in zip(
            self.leaders, points, centres, sizes, self.radii * scale, strict=True
        ):
            way = centre - point
            length = float(np.hypot(*way))
            with np.errstate(divide="ignore"):
                edge = length - float(np.min(np.array(size) / 2 / np.maximum(np.abs(way) / max(length, 1e-9), 1e-9)))
            if edge > radius + 5 * scale:
                unit = way / length
                leader.set_data(*np.array([point + unit * radius, point + unit * edge]).T)
                leader.set_transform(mpl.transforms.IdentityTransform())
                leader.draw(renderer)


def spread(
    points: np.ndarray,
    sizes: np.ndarray,
    radii: np.ndarray,
    frame: Sequence[float],
    blocked: Sequence[Sequence[float]],
    avoid: np.ndarray,
) -> np.ndarray:
    """Centres for labels near their points so that no two labels overlap, shape (n, 2), in pixels.

    Parameters
    ----------
    points, sizes : float arrays, shape (n, 2)
        Position of each point; width and height of its label.
    radii : float array, shape (n,)
        Radius of each point's marker.
    frame, blocked : (x0, y0, x1, y1) and a list of the same
        Where labels must stay, and where they must not go.
    avoid : float array, shape (m, 2)
        Places on lines that labels had better not cover.
    """
    n = len(points)
    room = 0.35 * sizes[:, 1].mean()  # a label this close to another point would seem to be its
    marks = np.column_stack([points - radii[:, None] - room, points + radii[:, None] + room])
    order = np.argsort([-np.sum(np.hypot(*(points - p).T) < 4 * sizes[:, 0].mean()) for p in points], kind="stable")
    centres, placed = points.astype(float).copy(), np.zeros(n, bool)
    steps = np.concatenate([np.linspace(0, 3, 7), np.geomspace(4, 40, 18)])
    turn = np.column_stack([np.cos(_ANGLES), np.sin(_ANGLES)])
    for _ in range(3):
        for i in order:
            half = sizes[i] / 2
            others = placed.copy()
            others[i] = False
            boxes = np.column_stack([centres - sizes / 2, centres + sizes / 2])[others]
            # the label's edge stands `gap` pixels off the marker: candidates ring by ring
            gap = 2.0 + steps * sizes[i][1] * 0.5
            reach = radii[i] + gap[:, None] + np.abs(turn) @ half
            c = points[i] + reach[..., None] * turn
            c = c.reshape(-1, 2)
            box = np.column_stack([c - half, c + half])
            hard = (
                _overlap(box, boxes).sum(1)
                + _overlap(box, np.asarray(blocked, float).reshape(-1, 4)).sum(1)
                + _outside(box, frame)
            )
            soft = 2.0 * _overlap(box, np.delete(marks, i, axis=0)).sum(1) / (half[0] * half[1])
            far = np.hypot(*(c - points[i]).T) / sizes[:, 0].mean()
            on_line = 0.6 * (
                (np.abs(avoid[None, :, 0] - c[:, None, 0]) < half[0])
                & (np.abs(avoid[None, :, 1] - c[:, None, 1]) < half[1])
            ).any(1)
            crossing = 0.5 * _crossings(points[i], c, points[others], centres[others])
            through = 0.8 * _pierced(points[i], c, boxes)
            cost = (
                1e3 * (hard > 1e-9)
                + hard
                + soft
                + far
                + on_line
                + crossing
                + through
                + 0.02 * np.tile(np.arange(len(turn)), len(steps)) / len(turn)
            )
            centres[i], placed[i] = c[int(np.argmin(cost))], True
    return centres


def _overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Area shared by each box of `a` with each of `b`, shape (len(a), len(b))."""
    w = np.minimum(a[:, None, 2], b[None, :, 2]) - np.maximum(a[:, None, 0], b[None, :, 0])
    h = np.minimum(a[:, None, 3], b[None, :, 3]) - np.maximum(a[:, None, 1], b[None, :, 1])
    return np.clip(w, 0, None) * np.clip(h, 0, None)


def _outside(box: np.ndarray, frame: Sequence[float]) -> np.ndarray:
    """How far each box sticks out of the frame, in pixels."""
    x0, y0, x1, y1 = frame
    return sum(np.clip(v, 0, None) for v in (x0 - box[:, 0], y0 - box[:, 1], box[:, 2] - x1, box[:, 3] - y1))


def _crossings(p: np.ndarray, ends: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """How many of the segments starts-stops each segment p-end crosses, shape (len(ends),)."""

    def side(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
        return np.sign(
            (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (c[..., 0] - a[..., 0])
        )

    e, a, b = ends[:, None, :], starts[None], stops[None]
    return ((side(p, e, a) * side(p, e, b) < 0) & (side(a, b, p) * side(a, b, e) < 0)).sum(1)


def _pierced(p: np.ndarray, ends: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """How many boxes each segment p-end runs through (sampled at 9 places), shape (len(ends),)."""
    t = np.linspace(0.1, 0.9, 9)[:, None, None]
    way = p + t * (ends - p)[None]
    inside = (
        (way[..., None, 0] > boxes[:, 0])
        & (way[..., None, 0] < boxes[:, 2])
        & (way[..., None, 1] > boxes[:, 1])
        & (way[..., None, 1] < boxes[:, 3])
    )
    return inside.any(0).sum(1)
