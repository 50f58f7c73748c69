"""The template of the quality report: page, style and script. Names in braces in `PAGE` are filled in."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
<script>{script}</script>
</body>
</html>
"""

STYLE = """
:root { --paper: #ffffff; --ink: #1f2328; --quiet: #59636e; --line: #d0d7de; --tile: #f6f8fa; --mark: #b35900; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #0d1117; --ink: #e6edf3; --quiet: #9198a1; --line: #3d444d; --tile: #161b22; --mark: #f0a04b; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1100px; margin: 0 auto; padding: 24px 20px 64px; }
h1 { font-size: 24px; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 36px 0 10px; }
code { overflow-wrap: anywhere; }
summary { cursor: pointer; color: var(--quiet); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(230px, 1fr)); gap: 12px; margin: 20px 0 0; }
.tiles div { background: var(--tile); border: 1px solid var(--line); border-radius: 8px; padding: 10px 14px; }
.tiles dt { color: var(--quiet); }
.tiles dd { margin: 0; font-size: 24px; font-variant-numeric: tabular-nums; }
.tiles small { display: block; font-size: 13px; color: var(--quiet); }
.notes { padding: 0; list-style: none; margin: 0; }
.notes li { border-left: 4px solid var(--mark); padding: 4px 12px; margin: 8px 0; overflow-wrap: anywhere; }
.picture { display: block; width: 100%; height: auto; background: #ffffff; border-radius: 8px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; min-width: 50%; }
caption { text-align: left; color: var(--quiet); padding-bottom: 6px; }
th, td { text-align: left; padding: 5px 12px; border-bottom: 1px solid var(--line); vertical-align: top; }
td { font-variant-numeric: tabular-nums; }
thead th { background: var(--tile); white-space: nowrap; }
tbody th { font-weight: 400; overflow-wrap: anywhere; min-width: 12em; }
.number { text-align: right; }
th button { font: inherit; font-weight: 600; color: inherit; background: none; border: 0; padding: 0; cursor: pointer; }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
"""

SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, place) => head.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const keys = new Map([...table.tBodies[0].rows].map(row => {
      const cell = row.cells[place];
      return [row, place === 0 ? cell.textContent : "value" in cell.dataset ? Number(cell.dataset.value) : null];
    }));
    const compare = (a, b) => {
      const [x, y] = [keys.get(a), keys.get(b)];
      if (x === null || y === null) return (x === null) - (y === null);
      const order = place === 0 ? x.localeCompare(y, undefined, { numeric: true }) : x - y;
      return down ? -order : order;
    };
    table.tBodies[0].append(...[...keys.keys()].sort(compare));
  }));
}
"""
