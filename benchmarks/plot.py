"""A bar chart as SVG, without a library, for light and dark pages."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

COLORS = ("#2f6fb2", "#7a7a7a", "#b26a2f", "#4c9a5f")
BAR, GAP, LEFT, WIDTH, VALUE = 14, 14, 250, 420, 60


def bars(title: str, groups: Mapping[str, Mapping[str, tuple[float, float]]]) -> str:
    """Horizontal bars in groups; the first value of a bar (part, whole) is drawn darker."""
    most = max(whole for group in groups.values() for _, whole in group.values())
    y = 40
    shapes = []
    for group, values in groups.items():
        shapes.append(_text(0, y + BAR - 3, group))
        for color, (name, (part, whole)) in zip(COLORS, values.items(), strict=False):
            scaled = [value / most * WIDTH for value in (whole, part)]
            shapes.append(_text(LEFT - 6, y + BAR - 3, name, "end"))
            shapes += [
                f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR - 2}"'
                f' fill="{color}" fill-opacity="{opacity}"/>'
                for width, opacity in zip(scaled, (0.55, 1), strict=True)
            ]
            shapes.append(_text(LEFT + scaled[0] + 5, y + BAR - 3, f"{whole:.0f}"))
            y += BAR
        y += GAP
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + VALUE} {y}"'
            ' font-family="sans-serif" font-size="11">',
            '<rect width="100%" height="100%" fill="#fff"/>',
            f'<text x="0" y="18" font-size="14">{escape(title)}</text>',
            *shapes,
            "</svg>\n",
        ]
    )


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'
