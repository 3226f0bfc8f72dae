"""Plots as inline SVG: points, lines and histograms with their intervals. It knows no experiment.

Written by hand, because the page has to stand alone: a plotting library inlined weighs four megabytes, these plots
a few kilobytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

WIDTH, HEIGHT = 480, 330
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 12, 44
COLOURS = (
    "#0b6e4f",
    "#c1440e",
    "#2b59c3",
    "#8f5fbf",
    "#b58900",
    "#5b6770",
    "#d33682",
    "#1f9e89",
    "#7a4419",
    "#111827",
    "#e07a9b",
    "#6b8e23",
)


@dataclass(frozen=True, slots=True)
class Point:
    """A figure with its interval; `y_low` and `y_high`, and the same of x where it has one."""

    x: float
    y: float
    y_low: float
    y_high: float
    x_low: float | None = None
    x_high: float | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """Points under one name."""

    name: str
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class Frame:
    """From values to places on the page."""

    low: tuple[float, float]
    high: tuple[float, float]

    def x(self, value: float) -> float:
        return LEFT + (value - self.low[0]) / (self.high[0] - self.low[0]) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.low[1]) / (self.high[1] - self.low[1]) * (HEIGHT - TOP - BOTTOM)


def lines(title: str, across: str, up: str, series: Sequence[Series], percent: bool = True) -> str:
    """Lines with a band around each, and the zero line where it is in sight."""
    frame = _frame(series, zero=percent)
    body: list[str] = []
    for colour, one in zip(_colours(series), series, strict=True):
        upper = [f"{frame.x(p.x):.1f},{frame.y(p.y_high):.1f}" for p in one.points]
        lower = [f"{frame.x(p.x):.1f},{frame.y(p.y_low):.1f}" for p in reversed(one.points)]
        body.append(f'<polygon points="{" ".join(upper + lower)}" fill="{colour}" opacity=".16"/>')
        path = " ".join(f"{frame.x(p.x):.1f},{frame.y(p.y):.1f}" for p in one.points)
        body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.2"/>')
    return _plot(title, across, up, frame, body, series, percent=percent)


def scatter(title: str, across: str, up: str, series: Sequence[Series]) -> str:
    """Points with a cross of their intervals; values are shares."""
    frame = _frame(series, zero=True)
    body: list[str] = []
    for colour, one in zip(_colours(series), series, strict=True):
        for p in one.points:
            x, y = frame.x(p.x), frame.y(p.y)
            body.append(_stroke(x, frame.y(p.y_low), x, frame.y(p.y_high), colour))
            if p.x_low is not None and p.x_high is not None:
                body.append(_stroke(frame.x(p.x_low), y, frame.x(p.x_high), y, colour))
            body.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>')
    return _plot(title, across, up, frame, body, series, percent=True)


def histogram(title: str, across: str, up: str, names: Sequence[str], series: Sequence[Series]) -> str:
    """Bars side by side, one a series, above each of the names; a series' points stand at x = 0, 1, 2 …"""
    edges = [Point(-0.5, 0, 0, 0), Point(len(names) - 0.5, 0, 0, 0)]
    frame = _frame([*series, Series("", edges)], zero=True)
    width = 0.8 / len(series)
    body = [
        f'<rect x="{frame.x(left := p.x - 0.4 + i * width):.1f}" y="{frame.y(p.y):.1f}" '
        f'width="{frame.x(left + width) - frame.x(left) - 1:.1f}" height="{frame.y(0) - frame.y(p.y):.1f}" '
        f'fill="{colour}"/>'
        for i, (colour, one) in enumerate(zip(_colours(series), series, strict=True))
        for p in one.points
    ]
    body += [
        f'<text x="{frame.x(i):.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{escape(name)}</text>'
        for i, name in enumerate(names)
    ]
    return _plot(title, across, up, frame, body, series, percent=False, show_x=False)


def _colours(series: Sequence[Series]) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(len(series))]


def _frame(series: Sequence[Series], zero: bool) -> Frame:
    """A frame around every point and interval, a little wider than they are; with `zero`, 0 is in it too."""
    xs = [v for s in series for p in s.points for v in (p.x, p.x_low, p.x_high) if v is not None]
    ys = [v for s in series for p in s.points for v in (p.y, p.y_low, p.y_high)]
    xs, ys = xs or [0.0], (ys or [0.0]) + ([0.0] if zero else [])
    edges: list[tuple[float, float]] = []
    for values in (xs, ys):
        low, high = min(values), max(values)
        pad = 0.05 * (high - low) or 0.5 * abs(high) or 1.0
        edges.append((low - pad, high + pad))
    return Frame((edges[0][0], edges[1][0]), (edges[0][1], edges[1][1]))


def ticks(low: float, high: float, n: int = 5) -> list[float]:
    """Round values between `low` and `high`, about n of them.

    >>> ticks(0.0, 1.0)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    raw = (high - low) / n
    power = 10 ** floor(log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
    return [round(i * step, 10) + 0.0 for i in range(first, last + 1)]


def _stroke(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="1.6"'
        ' stroke-linecap="round"/>'
    )


def _label(value: float, percent: bool) -> str:
    return f"{100 * value:+.4g}%".replace("+0%", "0%") if percent else f"{value:.4g}"


def _plot(
    title: str,
    across: str,
    up: str,
    frame: Frame,
    body: list[str],
    series: Sequence[Series],
    *,
    percent: bool,
    show_x: bool = True,
) -> str:
    found = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    for value in ticks(frame.low[1], frame.high[1]):
        y = frame.y(value)
        style = "axis zero" if value == 0 else "axis"
        found.append(f'<line class="{style}" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>')
        found.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_label(value, percent)}</text>')
    percent_across = "%" in across
    for value in ticks(frame.low[0], frame.high[0]) if show_x else []:
        x = frame.x(value)
        style = "axis zero" if value == 0 and percent_across else "axis"
        found.append(f'<line class="{style}" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{HEIGHT - BOTTOM}"/>')
        found.append(
            f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">'
            f"{_label(value, percent_across)}</text>"
        )
    found += body
    middle = (LEFT + WIDTH - RIGHT) / 2
    found.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(across)}</text></svg>')
    keys = "".join(
        f'<li><i style="background:{colour}"></i>{escape(one.name)}</li>'
        for colour, one in zip(_colours(series), series, strict=True)
        if one.name
    )
    return (
        f"<figure><figcaption><b>{escape(title)}</b><span>{escape(up)}</span></figcaption>"
        f'{"".join(found)}<ul class="key">{keys}</ul></figure>'
    )
