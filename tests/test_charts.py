"""Charts say what the ledger says, draw it offline in every reader, and survive whatever a name may be."""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import pytest
import vl_convert
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenkit.analysis import charts, frames, theme
from tokenkit.analysis.picture import MIMETYPE, SCHEMA, Chart
from tokenkit.errors import UserError
from tokenkit.journal import Journal
from tokenkit.ledger import Ledger
from tokenkit.receipts import Receipt, new_id
from tokenkit.types import Usage

NOON = datetime(2026, 3, 14, 12, 0).astimezone()  # local, as days are
HOSTILE = "x/\u202eevil</script><img src=x onerror=alert(1)>"


class Kitlike:
    """As much of a kit as a chart asks for: its ledger."""

    def __init__(self, folder: Path) -> None:
        self.journal = Journal(folder / "journal.sqlite3")
        self.ledger = Ledger(self.journal, folder / "ledger.duckdb")

    def write(self, calls: Sequence[tuple[str | None, int | None, float]]) -> None:
        """Write calls as (model, cost in nano-USD, seconds after noon)."""
        for model, nanos, after in calls:
            at = int((NOON + timedelta(seconds=after)).timestamp() * 1e9)
            self.journal.write(
                Receipt(new_id(), at, 1.0, "ok", "auto", model, usage=Usage(100, 20), cost_nanos=nanos, user="ada")
            )


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kitlike]:
    made = Kitlike(tmp_path)
    yield made
    made.journal.close()


def dots(chart: Chart) -> list[dict[str, Any]]:
    """The bars over time, as the chart hands them to the renderer."""
    top = chart.spec()["vconcat"][0]
    data: list[dict[str, Any]] = top["data"]["values"]
    return data


class Tags(HTMLParser):
    def __init__(self, source: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, attrs))


def test_the_title_says_the_finding(kit: Kitlike) -> None:
    kit.write(
        [("openai/gpt-4o", 830_000_000, 0), ("openai/gpt-4o", 224_100_000, 60), ("openai/mini", 215_900_000, 120)]
    )
    chart = charts.spend(kit)
    assert chart.title == "openai/gpt-4o made 83% of $1.27"
    assert repr(chart) == "Chart('openai/gpt-4o made 83% of $1.27')"
    assert "openai/gpt-4o      2     240  $1.05    83%" in str(chart)
    assert charts.spend(kit, by="user").title == "ada spent all of $1.27"
    assert charts.spend(kit, by="day").title == "All of $1.27 was spent on 14 March 2026"


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([None, "", "a/x", "a/y", HOSTILE, *(f"m/{i}" for i in range(9))]),
            st.one_of(st.none(), st.integers(0, 10**10)),
            st.floats(0, 10**8),
        ),
        min_size=1,
        max_size=40,
    )
)
def test_bars_rows_and_title_add_up_to_the_ledger(tmp_path_factory: Any, calls: list[Any]) -> None:
    kit = Kitlike(tmp_path_factory.mktemp("ledger"))
    kit.write(calls)
    found = frames.spend(kit.ledger)
    known = [nanos for _, nanos, _ in calls if nanos is not None]
    assert found.nanos == (sum(known) if known else None)
    assert found.calls == len(calls) == sum(bucket.calls for bucket in found.buckets)
    assert found.unpriced == len(calls) - len(known)
    assert sum(bucket.nanos for bucket in found.buckets) == sum(known)
    assert found.tokens == 120 * len(calls) == sum(bucket.tokens for bucket in found.buckets)
    assert len(found.groups) <= frames.MOST_GROUPS
    assert len({group.label for group in found.groups}) == len(found.groups)
    assert len({bucket.start for bucket in found.buckets}) <= frames.MOST_BUCKETS + 2
    ranked = [group.nanos or -1 for group in found.groups if "others" not in group.label]
    assert ranked == sorted(ranked, reverse=True)
    bars = dots(charts.spend(kit))
    drawn = sum(bar["top"] - bar["bottom"] for bar in bars)
    assert drawn == pytest.approx(sum(known) / 1e9 if sum(known) else len(calls))
    kit.journal.close()


def test_groups_beyond_the_eighth_are_put_together(kit: Kitlike) -> None:
    kit.write([(f"m/{i}", 10**9 * (20 - i), i) for i in range(12)])
    labels = [group.label for group in frames.spend(kit.ledger).groups]
    assert labels == [*(f"m/{i}" for i in range(7)), "5 others"]
    assert charts.spend(kit).spec()["vconcat"][0]["encoding"]["color"]["scale"]["range"][-1] == theme.OTHERS


def test_eight_groups_all_keep_their_names(kit: Kitlike) -> None:
    kit.write([(f"m/{i}", 10**9 * (20 - i), i) for i in range(8)])
    assert frames.spend(kit.ledger).groups[-1].label == "m/7"


def test_long_names_that_differ_in_their_middle_stay_apart(kit: Kitlike) -> None:
    kit.write([(f"provider/{'a' * 60}{i}{'b' * 60}", 10**6, i) for i in range(2)])
    first, second = (group.label for group in frames.spend(kit.ledger).groups)
    assert first != second
    assert len(first) <= frames.LONGEST_LABEL


@pytest.mark.parametrize(
    ("calls", "title"),
    [
        ([], "No calls yet"),
        ([("m", 0, 0)], "1 call, all free"),
        ([("m", None, 0), ("m", None, 1)], "2 calls, none with a known price"),
        ([("m", 0, 0), ("n", None, 1)], "2 calls, none that is known to have cost anything"),
        ([("m", 5, 0)], "m made all of $0.0000000050"),
        ([("m", 10**12, 0), ("n", 1, 1)], "m made over 99% of $1,000.00"),
        ([(None, 10**9, 0), ("n", 1, 1)], "Calls with no model made over 99% of $1.00"),
    ],
)
def test_every_kind_of_ledger_has_a_picture(kit: Kitlike, calls: Any, title: str) -> None:
    kit.write(calls)
    chart = charts.spend(kit)
    assert chart.title == title
    assert title in chart.svg()
    assert len(chart.png()) > 1_000


def test_a_span_of_any_length_has_a_fit_number_of_bars(kit: Kitlike) -> None:
    for seconds in (0, 40, 400, 4_000, 40_000, 400_000, 4_000_000, 40_000_000, 400_000_000):
        kit.write([("m", 10**6, seconds)])
        buckets = frames.spend(kit.ledger).buckets
        span = (buckets[-1].end - buckets[0].start) / (buckets[0].end - buckets[0].start)
        assert span <= frames.MOST_BUCKETS + 2
        bars = charts.spend(kit).spec()["vconcat"][0]["encoding"]["x"]["scale"]["domain"]
        assert len(bars) == 2


def test_since_and_by_are_checked_and_kept(kit: Kitlike) -> None:
    kit.write([("old", 10**9, 0), ("new", 10**9, 86_400 * 30)])
    assert "new made all of $1.00" in charts.spend(kit, since=(NOON + timedelta(days=1)).date()).title
    assert charts.spend(kit, since=datetime(2100, 1, 1, tzinfo=UTC)).title.startswith("No calls since 2100")
    with pytest.raises(UserError, match="Did you mean 'model'"):
        charts.spend(kit, by="modell")
    with pytest.raises(UserError, match="yesterdayish"):
        charts.spend(kit, since="yesterdayish")


def test_the_mimebundle_is_what_every_reader_takes(kit: Kitlike) -> None:
    kit.write([("openai/gpt-4o", 10**9, 0), (HOSTILE, 10**8, 100)])
    data, metadata = charts.spend(kit)._repr_mimebundle_()
    assert set(data) == {MIMETYPE, "image/png", "text/plain"}
    assert data[MIMETYPE]["$schema"] == SCHEMA
    json.dumps(data)
    assert metadata["image/png"]["width"] > 600
    notebook = nbformat.v4.new_notebook()
    notebook.cells.append(
        nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("display_data", data, metadata=metadata)])
    )
    nbformat.validate(notebook)
    assert len(json.dumps(data)) < 150_000


def test_the_specification_is_vega_lite_5_old_and_new(kit: Kitlike) -> None:
    kit.write([("a", 10**9, 0), ("b", 10**8, 100)])
    spec = charts.spend(kit).spec("light")
    versions = [v for v in vl_convert.get_vegalite_versions() if v.startswith("5.")]
    drawings = [
        vl_convert.vegalite_to_svg(spec, vl_version=v, allowed_base_urls=[]) for v in (versions[0], versions[-1])
    ]
    texts = [sorted(re.findall(r">([^<>]+)</text>", drawing)) for drawing in drawings]
    assert texts[0] == texts[1]
    assert "a made 91% of $1.10" in texts[0]
    bars = [len(re.findall(r'role="graphics-symbol" aria-roledescription="(?:rect mark|bar)"', d)) for d in drawings]
    assert bars == [4, 4]


def test_saved_pages_hold_the_picture_and_reach_for_nothing(kit: Kitlike, tmp_path: Path) -> None:
    kit.write([(HOSTILE, 10**9, 0), ("https://evil.example/model.js", 10**8, 100)])
    chart = charts.spend(kit)
    page = chart.save(tmp_path / "spend.html").read_text()
    tags = Tags(page).seen
    names = {tag for tag, _ in tags}
    assert "svg" in names
    assert not names & {"script", "img", "image", "link", "iframe", "object", "embed", "use", "foreignobject", "a"}
    attributes = [(name, value or "") for _, attrs in tags for name, value in attrs]
    assert not [name for name, _ in attributes if name.startswith("on") or name in ("src", "href", "xlink:href")]
    assert not [value for name, value in attributes if "//" in value and name != "aria-label"]
    assert "url(" not in re.sub(r"url\(#", "", page)
    assert "@import" not in page
    assert "‹U+202E›evil" in page
    assert "\u202e" not in page


def test_two_charts_on_one_page_share_no_id(kit: Kitlike) -> None:
    kit.write([("m", 10**9, 0), ("n", 10**9, 5)])
    one, other = charts.spend(kit).svg(), charts.spend(kit, by="user").svg()
    identities = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in (one, other)]
    assert identities[0]
    assert not identities[0] & identities[1]
    assert set(re.findall(r"url\(#([^)]+)\)", one)) <= identities[0]


def test_pictures_save_by_their_ending(kit: Kitlike, tmp_path: Path) -> None:
    kit.write([("m", 10**9, 0)])
    chart = charts.spend(kit)
    light = chart.save(tmp_path / "a.png").read_bytes()
    dark = chart.save(tmp_path / "b.PNG", theme="dark").read_bytes()
    assert light != dark
    assert first_pixel(light) == (255, 255, 255)
    assert first_pixel(dark) == (20, 23, 27)
    svg = chart.save(tmp_path / "c.svg").read_text()
    assert 'xmlns="http://www.w3.org/2000/svg"' in svg
    assert "prefers-color-scheme:dark" in svg
    assert "xmlns" not in chart.svg()
    with pytest.raises(UserError, match=r"ends in \.png"):
        chart.save(tmp_path / "d.jpeg")
    with pytest.raises(UserError, match="Cannot save the chart"):
        chart.save(tmp_path / "nowhere" / "e.png")


def first_pixel(picture: bytes) -> tuple[int, ...]:
    """Read the first pixel of a PNG, and with it every chunk's checksum."""
    pixels, i = b"", 8
    while i < len(picture):
        (length,) = struct.unpack(">I", picture[i : i + 4])
        chunk = picture[i + 4 : i + 8 + length]
        assert zlib.crc32(chunk) == int.from_bytes(picture[i + 8 + length : i + 12 + length], "big")
        pixels += chunk[4:] if chunk[:4] == b"IDAT" else b""
        i += 12 + length
    return tuple(zlib.decompress(pixels)[1:4])


def test_without_a_theme_the_renderers_ink_holds(kit: Kitlike) -> None:
    kit.write([("m", 10**9, 0)])
    neutral = json.dumps(charts.spend(kit).spec())
    inks = {ink for name in ("light", "dark") for ink in theme.INKS[name].values()}
    assert not [ink for ink in inks if ink in neutral]


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("inks", theme.INKS.values(), ids=theme.INKS)
def test_colours_can_be_told_from_paper_and_words_can_be_read(inks: dict[str, str]) -> None:
    assert all(contrast(colour, inks["paper"]) >= 3 for colour in (*theme.PALETTE, theme.OTHERS))
    assert contrast(inks["ink"], inks["paper"]) >= 7
    assert contrast(inks["soft"], inks["paper"]) >= 4.5


def test_altairs_own_object_is_there_to_change(kit: Kitlike) -> None:
    kit.write([("m", 10**9, 0)])
    chart = charts.spend(kit)
    chart.chart = chart.chart.properties(title="Mine")
    assert "Mine" in chart.svg()


def test_money_is_exact_where_it_is_said(kit: Kitlike) -> None:
    kit.write([("m", 1, i) for i in range(1_000)])
    assert Decimal(frames.spend(kit.ledger).nanos or 0) == 1_000
