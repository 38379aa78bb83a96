"""Looks and behaviour of the report; no font, image or script comes from elsewhere."""

CSS = """
:root {
  color-scheme: light dark;
  --paper: #fbfaf8; --card: #ffffff; --ink: #22211f; --soft: #6d6a64; --rule: #e4e1da;
  --accent: #2566a8; --good: #2c7a4b; --bad: #b3412f; --warm: #fdf4e3; --warm-rule: #e6c98a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #161615; --card: #1e1e1d; --ink: #e9e6df; --soft: #9b978e; --rule: #33322f;
    --accent: #7db2ea; --good: #79c596; --bad: #e58a78; --warm: #2c2618; --warm-rule: #6b5a2d;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 40px 28px 80px; max-width: 1160px; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif;
}
h1 {
  font-size: 27px; font-weight: 640; letter-spacing: -.015em; margin: 0;
  overflow-wrap: anywhere;
}
h2 { font-size: 17px; font-weight: 640; margin: 52px 0 4px; }
h2 + p { margin-top: 0; }
p { max-width: 72ch; margin: 8px 0 16px; }
.soft, small { color: var(--soft); }
small { font-size: 12.5px; }
.lead { font-size: 17px; margin: 18px 0 0; }
.note {
  background: var(--warm); border: 1px solid var(--warm-rule); border-radius: 8px;
  padding: 10px 14px; max-width: none; overflow-wrap: anywhere;
}
.facts {
  display: flex; flex-wrap: wrap; gap: 4px 22px; padding: 0; margin: 8px 0 0; list-style: none;
}
.facts li { color: var(--soft); font-size: 13.5px; overflow-wrap: anywhere; }
.facts b { color: var(--ink); font-weight: 560; font-variant-numeric: tabular-nums; }
details { margin-top: 6px; } summary { color: var(--soft); font-size: 13.5px; cursor: pointer; }
.verdicts {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 10px;
  padding: 0; margin: 14px 0 24px; list-style: none;
}
.verdicts li {
  background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 11px 14px;
  display: grid; grid-template: auto 1fr / 22px 1fr; align-items: baseline;
}
.evaluation { display: grid; gap: 28px; align-items: start; }
@media (min-width: 1000px) { .evaluation { grid-template-columns: minmax(0, 1fr) 360px; } }
.verdicts i { font-style: normal; font-weight: 700; }
.yes i { color: var(--good); } .no i { color: var(--bad); }
.verdicts small { grid-column: 2; }
.scroll { overflow-x: auto; }
table {
  border-collapse: collapse; font-variant-numeric: tabular-nums; min-width: 600px; width: 100%;
}
th, td { text-align: right; padding: 6px 9px; border-bottom: 1px solid var(--rule); }
th { font-weight: 500; color: var(--soft); font-size: 13px; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
tr.total td { font-weight: 620; }
tr.group td { color: var(--soft); font-size: 13px; padding-top: 18px; }
td { white-space: nowrap; }
td.up { color: var(--good); } td.down { color: var(--bad); }
.charts { display: grid;
  grid-template-columns: repeat(auto-fill, minmax(min(320px, 100%), 1fr)); gap: 14px;
}
figure { margin: 0; }
.chart {
  background: var(--card); border: 1px solid var(--rule); border-radius: 8px;
  padding: 10px 12px 4px;
}
figcaption { display: flex; flex-wrap: wrap; align-items: baseline; gap: 0 10px; }
figcaption b { font-weight: 600; font-size: 14px; }
figcaption span {
  margin-left: auto; color: var(--soft); font-size: 12.5px; font-variant-numeric: tabular-nums;
}
figcaption small { flex-basis: 100%; line-height: 1.35; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font-size: 10.5px; font-variant-numeric: tabular-nums; }
text.y, text.level { text-anchor: end; } text.x { text-anchor: middle; }
.grid { stroke: var(--rule); stroke-width: 1; }
path { fill: none; stroke: var(--accent); stroke-linejoin: round; }
.line { stroke: var(--accent); stroke-width: 2; } .raw { stroke-width: 1; opacity: .35; }
.dot, .band { fill: var(--accent); } .band { opacity: .15; }
.swap { stroke: var(--soft); stroke-dasharray: 2 3; stroke-width: 1.2; }
.level { stroke: var(--good); stroke-dasharray: 5 3; stroke-width: 1.5; }
text.level { stroke: none; fill: var(--good); }
.zero { stroke: var(--soft); opacity: .6; }
.interval { width: 140px; display: inline-block; vertical-align: middle; }
.cursor { stroke: var(--soft); }
.cursor-dot { fill: var(--card); stroke: var(--accent); stroke-width: 2; }
text.cursor-text {
  fill: var(--ink); stroke: var(--card); stroke-width: 3; paint-order: stroke;
  font-size: 11.5px;
}
.empty { color: var(--soft); text-align: center; padding: 30px 0; }
.videos { display: grid;
  grid-template-columns: repeat(auto-fill, minmax(min(354px, 100%), 1fr)); gap: 14px;
}
.videos.wide { grid-template-columns: 1fr; }
.pair {
  background: var(--card); border: 1px solid var(--rule); border-radius: 8px;
  padding: 12px 14px 14px;
}
.pair p { margin: 0 0 8px; font-weight: 560; line-height: 1.35; overflow-wrap: anywhere; }
.sides { display: grid; grid-template-columns: 1fr 1fr; gap: 10px; }
.sides small {
  margin-top: 3px; display: flex; justify-content: space-between;
  font-variant-numeric: tabular-nums;
}
video, .missing {
  width: 100%; min-height: 60px; border-radius: 4px; background: #000; display: block;
  cursor: pointer;
}
video.tiny { image-rendering: pixelated; width: 160px; max-width: 100%; }
.missing {
  aspect-ratio: 1; background: var(--rule); color: var(--soft); padding: 20px; font-size: 13px;
}
button {
  font: inherit; font-size: 13px; color: var(--ink); background: var(--card);
  border: 1px solid var(--rule); border-radius: 6px; padding: 4px 12px; cursor: pointer;
}
pre {
  background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 14px 16px;
  overflow-x: auto; font: 12.5px/1.55 ui-monospace, "SF Mono", Menlo, monospace;
}
"""

SCRIPT = """
const NS = 'http://www.w3.org/2000/svg';
const make = (svg, tag, name) => {
  const element = document.createElementNS(NS, tag);
  element.setAttribute('class', name);
  svg.append(element);
  return element;
};
for (const svg of document.querySelectorAll('svg[data-points]')) {
  const points = JSON.parse(svg.dataset.points);
  let line, dot, text;
  svg.addEventListener('pointermove', (event) => {
    const box = svg.getBoundingClientRect(), view = svg.viewBox.baseVal;
    const x = (event.clientX - box.left) / box.width * view.width;
    let best = points[0];
    for (const point of points) if (Math.abs(point[0] - x) < Math.abs(best[0] - x)) best = point;
    if (!line) {
      line = make(svg, 'line', 'cursor');
      dot = make(svg, 'circle', 'cursor-dot');
      text = make(svg, 'text', 'cursor-text');
      line.setAttribute('y1', 8);
      line.setAttribute('y2', view.height - 22);
      dot.setAttribute('r', 3.5);
      text.setAttribute('y', 18);
    }
    for (const [element, name, value] of [[line, 'x1', best[0]], [line, 'x2', best[0]],
      [dot, 'cx', best[0]], [dot, 'cy', best[1]]]) element.setAttribute(name, value);
    const right = best[0] > view.width / 2;
    text.setAttribute('x', best[0] + (right ? -7 : 7));
    text.style.textAnchor = right ? 'end' : 'start';
    text.textContent = best[2] + ': ' + best[3];
  });
  svg.addEventListener('pointerleave', () => {
    for (const element of [line, dot, text]) element?.remove();
    line = undefined;
  });
}
const videos = [...document.querySelectorAll('video')];
for (const video of videos) {
  video.addEventListener('click', () => (video.paused ? video.play() : video.pause()));
}
document.querySelector('#restart')?.addEventListener('click', () => {
  for (const video of videos) { video.currentTime = 0; video.play(); }
});
"""
