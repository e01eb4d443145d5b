"""A chart that shows and saves itself without network: interactive in JupyterLab, a picture everywhere else."""

from __future__ import annotations

import re
import zlib
from base64 import b64encode
from html import escape
from pathlib import Path
from typing import Any

from tokenkit._html import Table, table_card, table_text
from tokenkit.analysis import theme as themes
from tokenkit.analysis.theme import INKS, Theme
from tokenkit.errors import UserError

MIMETYPE = "application/vnd.vegalite.v5+json"
SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
VERSION = "5.21"  # the newest Vega-Lite 5 that vl-convert carries; charts keep to what 5.8 knows too
SCALE = 2.0  # pixels a unit, so that pictures are sharp on today's screens

_PNG = b"\x89PNG\r\n\x1a\n"
_CLIPS = re.compile(r'((?:id="|url\(#))(clip\d+)')
_NAMESPACES = re.compile(r'\sxmlns(?::\w+)?="[^"]*"')


class Chart:
    """A finding as a picture: ``title`` says it, ``table`` has the figures behind it, ``chart`` is Altair's own object.

    Change ``chart`` with Altair as you like; ``save`` writes ``.png``, ``.svg`` or ``.html``, none of which needs
    anything from outside itself.
    """

    def __init__(self, chart: Any, table: Table) -> None:
        self.chart, self.table = chart, table

    @property
    def title(self) -> str:
        """The finding, as one sentence."""
        return self.table.title

    def __repr__(self) -> str:
        return f"Chart({self.title!r})"

    def __str__(self) -> str:
        return table_text(self.table)

    def spec(self, theme: Theme | None = None) -> dict[str, Any]:
        """Return the chart as Vega-Lite 5; without a ``theme`` the renderer's own colours hold for text and lines."""
        made: dict[str, Any] = self.chart.to_dict()
        # Altair 6 writes version 6; JupyterLab draws version 5, and our charts use nothing that came after it.
        return made | {"$schema": SCHEMA, "config": themes.config(theme)}

    def svg(self, *, inline: bool = True) -> str:
        """Return the chart as SVG that goes dark with the reader's system.

        ``inline`` is for pages; without it the SVG carries the namespaces that a file of its own needs.
        """
        import vl_convert  # late: it carries a JavaScript engine

        drawn: str = vl_convert.vegalite_to_svg(self.spec("light"), vl_version=VERSION, allowed_base_urls=[])
        name = f'class="marks tokenkit-chart" role="img" aria-label="{escape(self.title)}"'
        drawn = drawn.replace('class="marks"', name, 1).replace(">", f"><style>{_twin()}</style>", 1)
        # Several charts may stand on one page, and an id belongs to one of them.
        drawn = _CLIPS.sub(rf"\g<1>{zlib.crc32(drawn.encode()):08x}-\g<2>", drawn)
        return _NAMESPACES.sub("", drawn) if inline else drawn

    def png(self, theme: Theme = "light") -> bytes:
        """Return the chart as PNG on light or dark paper, at two pixels a unit."""
        import vl_convert  # as in svg

        drawn: bytes = vl_convert.vegalite_to_png(
            self.spec(theme), vl_version=VERSION, scale=SCALE, allowed_base_urls=[]
        )
        return _packed(drawn)

    def html(self) -> str:
        """Return one page that holds the picture and its figures, with no script and no address outside itself."""
        title = escape(self.title)
        figures = table_card(self.table._replace(title="The figures")) if self.table.rows else ""
        return (
            f"<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><title>{title}</title>"
            f"<meta name='viewport' content='width=device-width'><style>{_PAGE}</style></head>"
            f"<body>{self.svg()}{figures}</body></html>\n"
        )

    def save(self, path: str | Path, theme: Theme = "light") -> Path:
        """Write the chart to a ``.png``, ``.svg`` or ``.html`` file and return its path; ``theme`` is for PNG."""
        target = Path(path).expanduser()
        kind = target.suffix.lower()
        if kind == ".png":
            content = self.png(theme)
        elif kind == ".svg":
            content = self.svg(inline=False).encode()
        elif kind == ".html":
            content = self.html().encode()
        else:
            raise UserError(f"Cannot save a chart as {target.name!r}: name a file that ends in .png, .svg or .html.")
        try:
            target.write_bytes(content)
        except OSError as error:
            raise UserError(f"Cannot save the chart to {target}: {error.strerror or error}.") from None
        return target

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Show: Vega-Lite 5 for JupyterLab and VS Code, a picture for everybody else, the figures for a terminal."""
        picture = self.png()
        width, height = (int.from_bytes(picture[i : i + 4], "big") / SCALE for i in (16, 20))  # PNG's first chunk
        data = {MIMETYPE: self.spec(), "image/png": b64encode(picture).decode(), "text/plain": str(self)}
        return data, {"image/png": {"width": round(width), "height": round(height)}}


def _packed(picture: bytes) -> bytes:
    """Compress a PNG's pixels again: vl-convert hardly does, and the difference is a notebook four times smaller."""
    kept, pixels, i = [], b"", len(_PNG)
    while i < len(picture):
        end = i + 12 + int.from_bytes(picture[i : i + 4], "big")  # length, name, content, checksum
        if picture[i + 4 : i + 8] == b"IDAT":
            pixels += picture[i + 8 : end - 4]
        else:
            kept.append(picture[i:end])
        i = end
    content = b"IDAT" + zlib.compress(zlib.decompress(pixels), 9)
    chunk = (len(content) - 4).to_bytes(4, "big") + content + zlib.crc32(content).to_bytes(4, "big")
    return b"".join((_PNG, *kept[:-1], chunk, kept[-1]))


def _twin() -> str:
    """Return the CSS that goes by the paper: JupyterLab's own where there is one, else that of the reader's system."""

    def swaps(where: str, to: Theme) -> str:
        return "".join(
            f'{where}.tokenkit-chart [{paint}="{ink}"]{{{paint}:{INKS[to][name]}}}'
            for name, ink in INKS["light"].items()
            for paint in ("fill", "stroke")
        )

    lab = "body[data-jp-theme-light={}] "
    system = f"@media(prefers-color-scheme:dark){{{swaps('', 'dark')}{swaps(lab.format('true'), 'light')}}}"
    return f".tokenkit-chart{{max-width:100%;height:auto}}{system}{swaps(lab.format('false'), 'dark')}"


_PAGE = (
    ":root{color-scheme:light dark}body{margin:2rem auto;max-width:60rem;padding:0 1rem;"
    f"font-family:system-ui,sans-serif;background:{INKS['light']['paper']};color:{INKS['light']['ink']}}}svg{{max-width:100%;height:auto}}"
    "@media(prefers-color-scheme:dark)"
    f"{{body{{background:{INKS['dark']['paper']};color:{INKS['dark']['ink']}}}}}"
)
