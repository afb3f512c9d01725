"""Looks and behaviour of the report: its style sheet and its script, nothing else."""

STYLE = """
:root { --paper:#fbfaf8; --card:#fff; --ink:#1d2126; --soft:#69707a; --line:#e4e1db;
  --accent:#c2374f; --c0:#0b6e99; --c1:#c2374f; --c2:#2a8f5b; --c3:#b07a00;
  --c4:#7b4fa3; --c5:#5b6470; --warn:#fff4d6; }
@media (prefers-color-scheme: dark) { :root { --paper:#14161a; --card:#1c1f25;
  --ink:#e8e6e1; --soft:#9aa1ab; --line:#30343c; --accent:#f0788c; --c0:#58b4dd;
  --c1:#f0788c; --c2:#62c592; --c3:#e0b04a; --c4:#b995dd; --c5:#a5adb8;
  --warn:#3a3118; } }
* { box-sizing:border-box }
body { margin:0; background:var(--paper); color:var(--ink);
  font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif }
main { max-width:1240px; margin:0 auto; padding:28px 24px 80px }
h1 { font-size:27px; letter-spacing:-.01em; margin:0 }
h2 { font-size:18px; margin:42px 0 12px }
h3 { font-size:15.5px; margin:0 }
p, .soft { color:var(--soft); margin:4px 0 }
code, pre { font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace }
pre { background:var(--card); border:1px solid var(--line); border-radius:8px;
  padding:12px 14px; overflow:auto; max-height:420px; margin:8px 0 }
.cards { display:flex; flex-wrap:wrap; gap:14px; margin-top:20px }
.card { background:var(--card); border:1px solid var(--line); border-radius:10px;
  padding:14px 18px; min-width:170px; flex:1 }
.card b { display:block; font-size:30px; line-height:1.15; letter-spacing:-.02em;
  font-variant-numeric:tabular-nums }
.card.result { border-color:var(--accent) }
.card.result b { color:var(--accent) }
.card.oracle b { color:var(--soft); font-weight:400 }
.card p { margin:0; font-size:13.5px }
.scroll { overflow-x:auto; background:var(--card); border:1px solid var(--line);
  border-radius:10px }
table { border-collapse:collapse; width:100%; font-variant-numeric:tabular-nums }
th, td { padding:7px 14px; text-align:right; border-bottom:1px solid var(--line);
  white-space:nowrap }
th { font-weight:600; color:var(--soft); font-size:13px }
th:first-child, td:first-child { text-align:left }
tbody tr:last-child td { border-bottom:0 }
tr.mean td { font-weight:600 }
.panels { display:grid; grid-template-columns:repeat(auto-fill,minmax(380px,1fr));
  gap:14px }
.panel, .sequence { background:var(--card); border:1px solid var(--line);
  border-radius:10px; padding:14px 16px }
svg.curves { width:100%; height:auto; display:block; color:var(--soft) }
svg text { font-size:11px; fill:currentColor }
svg .grid { stroke:var(--line) }
svg polyline { fill:none; stroke-width:1.8; stroke-linejoin:round }
svg.curves polyline:not(:last-of-type) { opacity:.4 }
.c0 { stroke:var(--c0) } .c1 { stroke:var(--c1) } .c2 { stroke:var(--c2) }
.c3 { stroke:var(--c3) } .c4 { stroke:var(--c4) } .c5 { stroke:var(--c5) }
.legend { display:flex; gap:14px; flex-wrap:wrap; font-size:12.5px; color:var(--soft) }
.legend svg { width:18px; height:8px; margin-right:5px }
.sequence { margin-top:16px }
.notes p { font-size:13px; margin:2px 0 }
.notes { margin-top:6px }
.row { display:flex; align-items:baseline; gap:14px; flex-wrap:wrap }
.row .soft { margin:0 }
.pictures { display:grid; gap:10px; margin-top:10px;
  grid-template-columns:repeat(auto-fill,minmax(270px,1fr)) }
figure { margin:0 }
figure img { width:100%; display:block; border-radius:6px; background:var(--line);
  outline:1px solid var(--line) }
figcaption { font-size:12.5px; color:var(--soft); padding-top:3px }
.scrub { display:flex; align-items:center; gap:12px; margin-top:10px }
.scrub input { flex:1; accent-color:var(--accent) }
.scrub output { min-width:150px; text-align:right; font-size:13px;
  font-variant-numeric:tabular-nums }
button { font:inherit; font-size:12.5px; color:var(--ink); background:transparent;
  border:1px solid var(--line); border-radius:14px; padding:2px 11px; cursor:pointer }
button:hover, button.on { border-color:var(--accent); color:var(--accent) }
.worst { display:flex; gap:7px; flex-wrap:wrap; align-items:center; margin-top:8px;
  font-size:12.5px; color:var(--soft) }
.warnings { background:var(--warn); border-radius:10px; padding:10px 14px 10px 34px;
  margin:0 }
.bars { display:grid; grid-template-columns:max-content 1fr max-content; gap:6px 12px;
  align-items:center; font-variant-numeric:tabular-nums }
.bars i { height:9px; background:var(--c0); border-radius:5px; min-width:2px }
.two { display:grid; grid-template-columns:repeat(auto-fit,minmax(380px,1fr));
  gap:14px }
details summary { cursor:pointer; color:var(--soft) }
@media print { button, .scrub input { display:none } }
"""

SCRIPT = """
for (const box of document.querySelectorAll('.sequence')) {
  const data = JSON.parse(box.querySelector('script').textContent);
  const slider = box.querySelector('input'), out = box.querySelector('output');
  const images = [...box.querySelectorAll('img')];
  const chips = [...box.querySelectorAll('.worst button')];
  const show = at => {
    const frame = data[at];
    slider.value = at;
    images.forEach((image, i) => {
      image.parentElement.style.visibility = frame.pictures[i] ? '' : 'hidden';
      if (frame.pictures[i]) image.src = 'data:image/jpeg;base64,' + frame.pictures[i];
    });
    const number = (name, value) =>
      value === null ? '' : '   ' + name + ' ' + (100 * value).toFixed(1);
    out.textContent = 'frame ' + frame.name + (frame.jaccard === null
      ? number('agreement', frame.agreement) : number('J', frame.jaccard));
    chips.forEach(chip => chip.classList.toggle('on', +chip.dataset.at === at));
  };
  slider.addEventListener('input', () => show(+slider.value));
  chips.forEach(chip => chip.addEventListener('click', () => show(+chip.dataset.at)));
  const play = box.querySelector('.play');
  let timer = 0;
  play.addEventListener('click', () => {
    if (timer) { clearInterval(timer); timer = 0; play.textContent = 'play'; return; }
    play.textContent = 'stop';
    timer = setInterval(() => show((+slider.value + 1) % data.length), 350);
  });
  show(+slider.value);
}
"""
