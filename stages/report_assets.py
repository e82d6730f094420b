"""What every report carries: its style, the script that draws the charts in the reader's colours, and Plotly itself.

Plotly's JavaScript (MIT licence, from the `plotly` package) is packed with gzip, which makes the file less than half as
large. The page forbids itself the network and every script but these two, named by their digests.
"""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import json

COLOURS = {
    "light": {
        "kept": "#4C78A8", "dropped": "#F58518", "second": "#72B7B2", "faint": "#D8DEE6",
        "ink": "#333B46", "grid": "#E6EAF0", "paper": "#FFFFFF",
    },
    "dark": {
        "kept": "#6F9FD8", "dropped": "#F58518", "second": "#72B7B2", "faint": "#3A4350",
        "ink": "#C3CBD6", "grid": "#2B333E", "paper": "#171C23",
    },
}  # fmt: skip
"""Colours by role, from Plotly's palette T10 (which readers with red-green blindness can tell apart)."""

STYLE = """
:root {
  color-scheme: light dark;
  --ink: #1d232b; --soft: #5a6573; --line: #dde3ea; --paper: #ffffff; --card: #f6f8fa; --accent: #33628f;
  --mark: #ffe3bf;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --ink: #e3e8ee; --soft: #98a4b3; --line: #2e3743; --paper: #12161b; --card: #1a2027; --accent: #8db7e6;
    --mark: #6b4a1c;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body {
  margin: 0 auto; padding: 1.5rem 1.25rem 4rem; max-width: 1080px; color: var(--ink); background: var(--paper);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; overflow-wrap: anywhere;
}
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .25rem; letter-spacing: -.01em; }
h2 { font-size: 1.3rem; margin: 3rem 0 .5rem; padding-top: .9rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
p { margin: .4rem 0 .8rem; max-width: 75ch; }
a { color: var(--accent); }
.soft, figcaption, caption, .place { color: var(--soft); }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .86em; }
nav { margin: 1.4rem 0 0; }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1rem; margin: 0; padding: 0; font-size: .93em; }
.tiles {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(46%, 210px), 1fr)); gap: .6rem;
  margin: 1.4rem 0 0; padding: 0;
}
.tiles div { background: var(--card); border: 1px solid var(--line); border-radius: 7px; padding: .6rem .8rem; }
.tiles dt { color: var(--soft); font-size: .82em; }
.tiles dd { margin: 0; font-size: 1.4rem; font-weight: 600; line-height: 1.3; font-variant-numeric: tabular-nums; }
.tiles dd small { display: block; font-size: .8rem; font-weight: 400; color: var(--soft); line-height: 1.35; }
.scroll { overflow-x: auto; margin: .6rem 0 1rem; }
.scroll:focus-visible, summary:focus-visible, a:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
table { border-collapse: collapse; font-size: .9em; min-width: 20rem; overflow-wrap: normal; }
caption { text-align: left; padding: .2rem 0 .3rem; }
th, td { padding: .3rem .9rem .3rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
thead th { font-weight: 600; color: var(--soft); border-bottom-width: 2px; vertical-align: bottom; }
tbody th, tfoot th { font-weight: 500; }
tfoot th, tfoot td { font-weight: 600; border-bottom: 0; }
th code, .facts th { white-space: nowrap; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.wide { min-width: 15rem; max-width: 34rem; overflow-wrap: anywhere; }
.reasons { list-style: none; margin: 0; padding: 0; display: flex; flex-wrap: wrap; gap: .05rem .9rem; }
.reasons b { font-weight: 600; font-variant-numeric: tabular-nums; }
.adds { color: var(--soft); white-space: nowrap; }
figure { margin: 1rem 0 1.4rem; }
figcaption { font-size: .9em; max-width: 90ch; } figcaption strong { color: var(--ink); }
.chart { width: 100%; overflow: hidden; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 0 1.6rem; }
details { margin: .35rem 0; } summary { cursor: pointer; }
summary::marker { color: var(--accent); }
.numbers { font-size: .86em; margin-top: 0; color: var(--soft); }
.excerpt {
  white-space: pre-wrap; overflow-wrap: anywhere; background: var(--card); border: 1px solid var(--line);
  border-radius: 6px; padding: .6rem .8rem; margin: .2rem 0 .9rem; max-height: 20rem; overflow: auto;
  unicode-bidi: isolate; line-height: 1.45; contain: paint;
}
.place { font-size: .86em; margin: .5rem 0 0; max-width: none; unicode-bidi: isolate; }
mark { background: var(--mark); color: inherit; border-radius: 2px; }
.graph text { text-anchor: middle; fill: var(--ink); } .graph .name { font-size: 10.5px; font-weight: 600; }
.graph .fact { font-size: 10px; fill: var(--soft); } .graph .node { fill: var(--card); stroke: var(--line); }
.graph .edge { fill: none; stroke: var(--soft); stroke-width: 1.2; }
footer { margin-top: 3rem; color: var(--soft); font-size: .88em; }
@media print {
  @page { margin: 14mm; }
  body { max-width: none; padding: 0; font-size: 10.5pt; } nav, .numbers { display: none; }
  figure, tr, .tiles div, .excerpt { break-inside: avoid; } h2, h3, summary, .place { break-after: avoid; }
  h2 { margin-top: 1.6rem; } .excerpt { max-height: none; } .scroll { overflow: visible; }
  table { font-size: 8pt; } .wide { min-width: 0; } td, th code { white-space: normal; }
  .graph { max-width: 100%; height: auto; }
}
"""

SCRIPT = """
(function () {
  "use strict";
  const colours = %COLOURS%;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const drawn = [];
  let printing = false;

  function axis(own, c) {
    return Object.assign({gridcolor: c.grid, linecolor: c.grid, zeroline: false, automargin: true}, own);
  }
  function dressed(figure) {
    const c = colours[dark.matches && !printing ? "dark" : "light"];
    const data = figure.data.map(function (trace) {
      const colour = c[(trace.meta || {}).role] || c.kept;
      if (trace.type === "heatmap") {
        const bar = Object.assign({outlinewidth: 0}, trace.colorbar);
        return Object.assign({}, trace, {colorscale: [[0, c.paper], [1, c.kept]], colorbar: bar});
      }
      const marker = trace.type === "bar" ? {color: colour, line: {width: 0}} : {color: colour, size: 6};
      return Object.assign({}, trace, {marker: marker, line: {color: colour, width: 2}});
    });
    const own = figure.layout;
    const layout = Object.assign({}, own, {
      font: {family: "system-ui, -apple-system, Segoe UI, Roboto, sans-serif", size: 12, color: c.ink},
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      margin: {l: 50, r: 14, t: 30, b: 46},
      legend: Object.assign({orientation: "h", x: 0, y: 1.02, yanchor: "bottom", traceorder: "normal"}, own.legend),
      hoverlabel: {font: {family: "system-ui, sans-serif"}},
      dragmode: false,
      xaxis: axis(own.xaxis, c), yaxis: axis(own.yaxis, c),
      shapes: (own.shapes || []).map(function (shape) {
        const colour = c[shape.name] || c.dropped;
        return Object.assign({}, shape, {
          fillcolor: colour, line: Object.assign({color: colour}, shape.line)
        });
      })
    });
    if (printing) { layout.width = 660; } else { layout.autosize = true; }
    return {data: data, layout: layout};
  }
  function draw(entry) {
    const look = dressed(entry.figure);
    return Plotly.react(entry.box, look.data, look.layout, {responsive: true, displayModeBar: false});
  }
  function again() { drawn.forEach(draw); }

  async function load() {
    const packed = document.getElementById("plotly").textContent.trim();
    const bytes = Uint8Array.from(atob(packed), function (letter) { return letter.charCodeAt(0); });
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
  }
  async function start() {
    await load();
    for (const box of document.querySelectorAll(".chart")) {
      const entry = {box: box, figure: JSON.parse(box.nextElementSibling.textContent)};
      drawn.push(entry);
      await draw(entry);
      await new Promise(function (done) { setTimeout(done, 0); });
    }
    dark.addEventListener("change", again);
    window.addEventListener("beforeprint", function () { printing = true; again(); });
    window.addEventListener("afterprint", function () { printing = false; again(); });
    document.documentElement.dataset.charts = "drawn";
  }
  start().catch(function (error) {
    document.getElementById("no-charts").hidden = false;
    console.error(error);
  });
})();
""".replace("%COLOURS%", json.dumps(COLOURS))


@functools.cache
def plotly_script() -> str:
    """Plotly's JavaScript as text."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


@functools.cache
def packed_plotly() -> str:
    """The same, gzip in base64: the same bytes every time."""
    return base64.b64encode(gzip.compress(plotly_script().encode(), 9, mtime=0)).decode()


def content_policy() -> str:
    """The page's Content-Security-Policy: no network, no script that is not one of the two, whatever a text holds."""
    digests = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in (SCRIPT, plotly_script())
    )
    return (
        f"default-src 'none'; script-src {digests}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
