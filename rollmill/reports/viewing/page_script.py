"""The JavaScript of the page of trajectories. All data is inserted through `textContent`, never as markup."""

SCRIPT = r"""
"use strict";
(() => {
const at = (id) => document.getElementById(id);
const parsed = (script) => JSON.parse(script.textContent);
const rows = Array.from(document.querySelectorAll("script.facts"), parsed);
const sheets = document.querySelectorAll("script.trajectory");
const LONG = 3000;
const texts = [];  // lower-cased text of a trajectory, made when it is first searched
let shown = [];    // indices into rows, as listed
let chosen = rows.findIndex((row) => "#row-" + row.row === location.hash);
let drawn = -1;
let clicked = false;
let lost = chosen < 0 && location.hash;
let search = 0;    // number of the latest search; older ones stop

function make(tag, className, text, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text != null) node.textContent = text;
  node.append(...children);
  return node;
}
const count = (n) => Number(n).toLocaleString("en");
const number = (value) => Number(value).toLocaleString("en", {maximumSignificantDigits: 4});
const isNarrow = () => matchMedia("(max-width: 50rem)").matches;  // all in one column, which scrolls as one
const states = {success: "success", unsuccessful: "unsuccessful", unjudged: "not judged", failed: "failed"};
const badge = (row) => make("span", "badge " + row.state, states[row.state]);

function* strings(value) {
  if (typeof value === "string") yield value;
  else if (value !== null && typeof value === "object") for (const part of Object.values(value)) yield* strings(part);
}
function text(i) {
  return texts[i] ??= [rows[i].id, ...strings(parsed(sheets[i]))].join("\n").toLowerCase();
}

// ---- the list
const items = rows.map((row) => {
  const facts = make("span", "facts", null, make("span", "", "sample " + row.sample), badge(row));
  if (row.reward != null) facts.append(make("span", "", "reward " + number(row.reward)));
  if (row.calls != null) facts.append(make("span", "", count(row.calls) + (row.calls === 1 ? " call" : " calls")));
  for (const word of [row.error, row.denied ? "claimed success" : null]) if (word) facts.append(make("span", "", word));
  const link = make("a", "", null, make("span", "id", row.id), facts);
  link.href = "#row-" + row.row;
  return make("li", "", null, link);
});

function options(select, values, kind) {
  const counts = new Map();
  for (const value of values) if (value) counts.set(value, (counts.get(value) ?? 0) + 1);
  for (const [value, n] of [...counts].sort((a, b) => a[0] < b[0] ? -1 : 1)) {
    const option = make("option", "", value + " (" + count(n) + ")");
    option.value = kind + value;
    select.append(option);
  }
  return counts.size;
}
for (const state of Object.keys(states)) {
  const n = rows.filter((row) => row.state === state).length;
  const option = make("option", "", states[state] + " (" + count(n) + ")");
  option.value = state;
  if (n || state !== "unjudged") at("state").append(option);
}
options(at("problem"), rows.map((row) => row.id), "");
for (const [kind, label] of [["error", "Error"], ["exit", "Exit status"]]) {
  const group = make("optgroup");
  group.label = label;
  if (options(group, rows.map((row) => row[kind]), kind + ":")) at("ending").append(group);
}

function passes(row, wanted) {
  if (wanted.state && row.state !== wanted.state) return false;
  if (wanted.problem && row.id !== wanted.problem) return false;
  if (wanted.ending && "error:" + row.error !== wanted.ending && "exit:" + row.exit !== wanted.ending) return false;
  if (wanted.least !== "" && !(row.reward != null && row.reward >= Number(wanted.least))) return false;
  return wanted.most === "" || (row.reward != null && row.reward <= Number(wanted.most));
}
const last = (value, sign) => value == null ? Infinity : sign * value;  // what has no value comes last either way
const orders = {
  "": (a, b) => a - b,
  best: (a, b) => last(rows[a].reward, -1) - last(rows[b].reward, -1) || a - b,
  worst: (a, b) => last(rows[a].reward, 1) - last(rows[b].reward, 1) || a - b,
  longest: (a, b) => rows[b].length - rows[a].length || a - b,
  shortest: (a, b) => rows[a].length - rows[b].length || a - b,
};
const wishes = () => Object.fromEntries(new FormData(at("filters")));
const isNarrowed = (wanted) => Object.entries(wanted).some(([name, value]) => name !== "order" && value.trim());

async function update() {
  const mine = ++search;
  const wanted = wishes();
  const query = wanted.query.trim().toLowerCase();
  const found = [];
  let pause = performance.now() + 40;
  for (let i = 0; i < rows.length; i++) {
    if (passes(rows[i], wanted) && (!query || text(i).includes(query))) found.push(i);
    if (performance.now() > pause) {
      at("matches").textContent = "searching…";
      await new Promise((go) => setTimeout(go));
      if (mine !== search) return;
      pause = performance.now() + 40;
    }
  }
  shown = found.sort((a, b) => orders[wanted.order](a, b) || a - b);
  at("list").replaceChildren(...shown.map((i) => items[i]));
  at("matches").textContent = count(shown.length) + " of " + count(rows.length)
    + (rows.length === 1 ? " trajectory" : " trajectories");
  at("clear").hidden = !isNarrowed(wanted);
  if (lost) follow();
  else if (shown.length && !shown.includes(chosen)) location.replace("#row-" + rows[shown[0]].row);
  else if (shown.length && drawn === chosen) mark(query);
  else if (shown.length) show(chosen);
  else say(rows.length ? "No trajectory matches." : "There is no trajectory here.");
}

// ---- the chosen trajectory
function say(words) {
  choose(-1);
  at("sheet").replaceChildren(make("p", "empty", words));
}
function choose(i) {
  items[chosen]?.firstChild.removeAttribute("aria-current");
  chosen = drawn = i;
  items[i]?.firstChild.setAttribute("aria-current", "true");
  if (!isNarrow()) items[i]?.scrollIntoView({block: "nearest"});
}

function collapsible(body, length) {
  if (length <= LONG) return [body];
  const button = make("button", "more");
  button.type = "button";
  const set = (open) => {
    body.classList.toggle("cut", !open);
    button.textContent = open ? "Show less" : "Show all " + count(length) + " characters";
    button.setAttribute("aria-expanded", String(open));
  };
  button.addEventListener("click", () => set(button.getAttribute("aria-expanded") !== "true"));
  body.open = () => set(true);
  set(false);
  return [body, button];
}

function diff(text) {
  const pre = make("pre", "diff");
  const kind = (line) => /^(diff |index |\+\+\+|---)/.test(line) ? "file"
    : {"+": "added", "-": "removed", "@": "hunk"}[line[0]] ?? "";
  let lines = [], before = null;
  const put = () => { if (lines.length) pre.append(make("span", before, lines.join("\n") + "\n")); };
  for (const line of text.split("\n")) {
    if (kind(line) !== before) { put(); lines = []; before = kind(line); }
    lines.push(line);
  }
  put();
  return pre;
}

function block([kind, text, label]) {
  if (kind === "text") return [make("div", "prose", text)];
  if (kind === "reasoning") return [make("p", "label", "reasoning"), make("div", "reasoning", text)];
  if (kind === "diff" || label === "diff") return [diff(text)];
  if (kind === "left_out") return [make("p", "notice", "… " + text + " characters left out")];
  const above = kind === "call" ? label || "tool call" : label;
  return [...(above ? [make("p", "label", above)] : []), make("pre", kind, text)];
}

function message([role, name, blocks, bookkeeping], i) {
  const length = blocks.reduce((sum, [, text]) => sum + text.length, 0);
  const title = (i + 1) + " " + role + (name ? " (" + name + ")" : "") + (bookkeeping ? ", bookkeeping" : "");
  const body = make("div", "body", null, ...blocks.flatMap(block));
  if (!blocks.length) body.append(make("p", "label", "(empty)"));
  const header = make("header", "", null, make("h4", "", title), make("span", "", count(length) + " characters"));
  const known = /^[a-z]+$/.test(role) ? " role-" + role : "";
  return make("article", "message" + known, null, header, ...collapsible(body, length));
}

function section(name, ...children) {
  const heading = make("h3", "", name);
  heading.tabIndex = -1;
  return make("section", "", null, heading, ...children);
}
function list(pairs) {
  const entries = pairs.filter(([, value]) => value != null && value !== "");
  return make("dl", "", null, ...entries.map(([name, value]) =>
    make("div", "", null, make("dt", "", name), make("dd", "", null, value))));
}
function findings(name, {facts, outputs}) {
  if (!facts.length && !outputs.length) return [];
  const printed = outputs.flatMap(([title, blocks]) => {
    const body = make("div", "", null, ...blocks.flatMap(block));
    return [make("p", "label", title), ...collapsible(body, blocks.reduce((sum, [, text]) => sum + text.length, 0))];
  });
  return [section(name, list(facts), ...printed)];
}

function head(row, sheet) {
  const title = make("h2", "", row.id);
  title.tabIndex = -1;
  const nodes = [title, list([
    ["sample", String(row.sample)], ["outcome", badge(row)], ["error", row.error],
    ["reward", row.reward == null ? null : number(row.reward)],
    ["speedup", row.speedup == null ? null : number(row.speedup) + "×"], ["exit status", row.exit],
    ["finish reason", row.finish], ["model calls", row.calls == null ? null : count(row.calls)],
    ["tokens", row.tokens == null ? null : count(row.tokens)], ["characters", count(row.length)],
  ])];
  if (row.denied) nodes.push(make("p", "notice bad", row.denied));
  if (row.unparseable) nodes.push(make("p", "notice", "No answer was found in it."));
  if (sheet.error) nodes.push(make("p", "notice bad", sheet.error));
  if (sheet.unreadable) nodes.push(make("p", "notice", sheet.unreadable));
  return nodes;
}

function show(i) {
  const row = rows[i], sheet = parsed(sheets[i]);
  const problem = make("div", "prose", sheet.problem);
  const parts = [
    ...(sheet.problem ? [section("Problem statement", ...collapsible(problem, sheet.problem.length))] : []),
    section("Messages", ...(sheet.turns.length ? sheet.turns.map(message) : [make("p", "notice", sheet.silent)])),
    ...(sheet.diff ? [section("Git diff", ...collapsible(diff(sheet.diff), sheet.diff.length))] : []),
    ...findings("Evaluation", sheet.evaluation), ...findings("Verdict", sheet.verdict),
  ];
  const jumps = make("nav");
  jumps.setAttribute("aria-label", "Parts of this trajectory");
  for (const part of parts) {
    const jump = make("button", "", part.firstChild.textContent);
    jump.type = "button";
    jump.addEventListener("click", () => { part.firstChild.focus(); part.scrollIntoView(); });
    jumps.append(jump);
  }
  at("sheet").replaceChildren(...head(row, sheet), jumps, ...parts);
  at("sheet").scrollTop = 0;
  choose(i);
  at("now").textContent = row.id + ", sample " + row.sample + ", " + states[row.state];
  mark(at("query").value.trim().toLowerCase());
}

// Marks what was searched for without touching the page's elements, and opens what hides it.
function mark(query) {
  if (!globalThis.CSS?.highlights) return;
  CSS.highlights.clear();
  if (!query) return;
  const ranges = [];
  const walker = document.createTreeWalker(at("sheet"), NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node && ranges.length < 1000; node = walker.nextNode()) {
    const text = node.data.toLowerCase();
    if (text.length !== node.data.length) continue;
    for (let start = text.indexOf(query); start >= 0; start = text.indexOf(query, start + query.length)) {
      const range = new Range();
      range.setStart(node, start);
      range.setEnd(node, start + query.length);
      ranges.push(range);
      node.parentElement.closest(".cut")?.open();
    }
  }
  CSS.highlights.set("found", new Highlight(...ranges));
  const sheet = at("sheet");
  const below = (ranges[0]?.getBoundingClientRect().top ?? 0) - sheet.getBoundingClientRect().bottom;
  if (!isNarrow() && below > -40) sheet.scrollTop += below + sheet.clientHeight / 2;
}

// ---- moving
function follow() {
  lost = false;
  if (!location.hash) return;
  const i = rows.findIndex((row) => "#row-" + row.row === location.hash);
  if (i >= 0) show(i);
  if (i >= 0 && clicked && isNarrow()) at("sheet").scrollIntoView();
  clicked = false;
  if (i < 0) say("This page has no trajectory " + location.hash + ".");
}
function move(step) {
  const next = shown[Math.min(Math.max(shown.indexOf(chosen) + step, 0), shown.length - 1)];
  if (next !== undefined && next !== chosen) location.replace("#row-" + rows[next].row);
}
function clear() {
  at("filters").reset();
  update();
}
let typing = 0;
at("filters").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(update, 150); });
at("filters").addEventListener("submit", (event) => event.preventDefault());
at("clear").addEventListener("click", () => { clear(); at("query").focus(); });
at("skip").addEventListener("click", (event) => { event.preventDefault(); at("sheet").focus(); });
at("list").addEventListener("click", () => { clicked = true; });
addEventListener("hashchange", follow);
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target === at("query") && event.key === "Escape") { clear(); at("query").blur(); }
  if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  if (event.key === "j") move(1);
  else if (event.key === "k") move(-1);
  else if (event.key === "/") { event.preventDefault(); at("query").focus(); }
});
update();
})();
"""
