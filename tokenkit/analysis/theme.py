"""How charts look: one palette that tells groups apart for every kind of colour vision, and inks for light and dark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Theme = Literal["light", "dark"]

# Okabe and Ito's colours (Color Universal Design, 2008), a shade deeper where white paper asks for it: neighbours
# differ in lightness as well as in hue, and each is at least 3:1 against both papers.
PALETTE = ("#2b7bba", "#d1690e", "#1a936f", "#b8609e", "#997a00", "#4b9cc9", "#c2504f")
OTHERS = "#8a8a8a"

# Words among marks cannot take the renderer's own ink as axes do: this grey is about 4:1 on white and more on
# JupyterLab's dark paper.
WORDS = "#808080"

INKS: Mapping[Theme, Mapping[str, str]] = {
    "light": {"paper": "#ffffff", "ink": "#1b1f24", "soft": "#5b6570", "line": "#e2e6ea"},
    "dark": {"paper": "#14171b", "ink": "#e8ecf0", "soft": "#9ba5af", "line": "#2d333a"},
}


def colours(groups: int, others: bool) -> list[str]:
    """Return one colour a group; the last is grey when it stands for several others."""
    chosen = [PALETTE[i % len(PALETTE)] for i in range(groups)]
    if others and chosen:
        chosen[-1] = OTHERS
    return chosen


def config(theme: Theme | None) -> dict[str, Any]:
    """Return a Vega-Lite config; without a theme it leaves inks to the renderer, which knows its own background."""
    made: dict[str, Any] = {
        "font": "sans-serif",
        "background": "transparent",
        "view": {"stroke": None},
        "title": {"anchor": "start", "fontSize": 16, "fontWeight": 600, "subtitleFontSize": 12, "offset": 10,
                  "subtitlePadding": 5, "frame": "bounds"},
        "axis": {"labelFontSize": 11, "domain": False, "ticks": False, "labelPadding": 6, "title": None,
                 "titleFontWeight": 400, "gridOpacity": 0.25, "gridColor": "#808080"},
        "header": {"labelFontSize": 11},
        "legend": {"labelFontSize": 11, "title": None, "orient": "bottom", "symbolType": "square"},
        "axisX": {"grid": False},
        "bar": {"cornerRadiusEnd": 2},
        "text": {"color": WORDS, "fontSize": 11},
    }  # fmt: skip
    if theme is None:
        return made
    inks = INKS[theme]
    made["background"] = inks["paper"]
    made["title"] |= {"color": inks["ink"], "subtitleColor": inks["soft"]}
    made["axis"] |= {
        "labelColor": inks["soft"], "titleColor": inks["soft"], "gridColor": inks["line"], "gridOpacity": 1,
        "tickColor": inks["line"],
    }  # fmt: skip
    made["text"] |= {"color": inks["ink"]}
    made["header"] |= {"labelColor": inks["ink"]}
    made["legend"] |= {"labelColor": inks["ink"]}
    made["style"] = {"guide-label": {"fill": inks["ink"]}}
    return made
