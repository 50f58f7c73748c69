"""The CSS of the page of trajectories, in light and dark, for wide and narrow windows."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --panel: #f6f8fa; --ink: #1f2328; --quiet: #59636e; --line: #d0d7de; --link: #0a57c2;
  --chosen: #ddeeff; --code: #f2f4f7; --good: #116329; --good-paper: #dafbe1; --bad: #b1162a; --bad-paper: #ffebe9;
  --warn: #7d4e00; --warn-paper: #fff4ce; --hunk: #0a57c2; --mark: #ffe58a;
  --system: #8250df; --user: #0a57c2; --assistant: #116329; --tool: #7d4e00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #0d1117; --panel: #151b23; --ink: #e6edf3; --quiet: #9da7b3; --line: #30363d; --link: #79b8ff;
    --chosen: #16304d; --code: #1a212b; --good: #6fdd8b; --good-paper: #12301c; --bad: #ff9492; --bad-paper: #3d1a1d;
    --warn: #f0c674; --warn-paper: #372a0c; --hunk: #79b8ff; --mark: #7a5c00;
    --system: #d2a8ff; --user: #79b8ff; --assistant: #6fdd8b; --tool: #f0c674;
  }
}
* { box-sizing: border-box; }
body { margin: 0; height: 100vh; display: grid; grid-template: auto 1fr / minmax(20rem, 26rem) minmax(0, 1fr);
  background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
a { color: var(--link); }
:focus-visible { outline: 2px solid var(--link); outline-offset: 1px; }
.unseen:not(:focus) { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
.skip:focus { position: absolute; z-index: 2; padding: .5rem 1rem; background: var(--paper); }
#top { grid-column: 1 / -1; display: flex; flex-wrap: wrap; gap: 0 1rem; align-items: baseline; padding: .5rem 1rem;
  border-bottom: 1px solid var(--line); background: var(--panel); }
#top h1 { font-size: 1.05rem; margin: 0; overflow-wrap: anywhere; }
#top p { margin: 0; color: var(--quiet); }
kbd { font: .8em ui-monospace, "DejaVu Sans Mono", monospace; padding: 0 .3em; border: 1px solid var(--line);
  border-radius: 4px; }
#side { display: flex; flex-direction: column; min-height: 0; border-right: 1px solid var(--line);
  background: var(--panel); }
#filters { display: grid; grid-template-columns: 1fr 1fr; gap: .4rem .6rem; padding: .6rem .8rem;
  border-bottom: 1px solid var(--line); }
#filters label { display: block; font-size: .78rem; color: var(--quiet); min-width: 0; }
#filters .wide { grid-column: 1 / -1; }
#filters input, #filters select { display: block; width: 100%; padding: .25rem .4rem; font: inherit; font-size: .9rem;
  color: var(--ink); background: var(--paper); border: 1px solid var(--line); border-radius: 6px; }
button { font: inherit; font-size: .85rem; padding: .15rem .7rem; color: var(--link); background: var(--paper);
  border: 1px solid var(--line); border-radius: 6px; cursor: pointer; }
#count { display: flex; justify-content: space-between; align-items: center; gap: .5rem; margin: 0;
  min-height: 2.4rem; padding: .3rem .8rem; font-size: .85rem; color: var(--quiet);
  border-bottom: 1px solid var(--line); }
#list { list-style: none; margin: 0; padding: 0; overflow: auto; flex: 1; }
#list li { content-visibility: auto; contain-intrinsic-size: auto 3.8rem; border-bottom: 1px solid var(--line); }
#list a { display: block; padding: .4rem .8rem; color: inherit; text-decoration: none; }
#list a:hover { background: var(--code); }
#list a:focus-visible { outline-offset: -2px; }
#list a[aria-current] { background: var(--chosen); box-shadow: inset 4px 0 var(--link); }
#list .id { display: block; overflow-wrap: anywhere; font-size: .88rem; line-height: 1.3; }
#list .facts { display: flex; flex-wrap: wrap; gap: .1rem .6rem; font-size: .8rem; color: var(--quiet); }
.badge { padding: 0 .5em; border-radius: 1em; font-size: .78rem; white-space: nowrap; color: var(--quiet);
  background: var(--code); }
.success { color: var(--good); background: var(--good-paper); }
.unsuccessful { color: var(--bad); background: var(--bad-paper); }
.failed { color: var(--warn); background: var(--warn-paper); }
#sheet { overflow: auto; padding: .8rem 1.4rem 4rem; scroll-padding-top: 1rem; }
#sheet > * { max-width: 68rem; }
#sheet h2 { font-size: 1.2rem; margin: 0 0 .2rem; overflow-wrap: anywhere; }
#sheet h2:focus { outline: none; }
#sheet h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
#sheet nav { display: flex; flex-wrap: wrap; gap: .4rem; margin: .6rem 0; }
dl { display: flex; flex-wrap: wrap; gap: .1rem 1.4rem; margin: .5rem 0; }
dl div { display: flex; gap: .4rem; min-width: 0; }
dt { color: var(--quiet); flex: none; }
dd { margin: 0; overflow-wrap: anywhere; white-space: pre-wrap; }
.notice { margin: .5rem 0; padding: .4rem .8rem; border-radius: 6px; color: var(--warn); background: var(--warn-paper);
  overflow-wrap: anywhere; white-space: pre-wrap; }
.notice.bad { color: var(--bad); background: var(--bad-paper); }
.empty { padding: 2rem 1rem; color: var(--quiet); text-align: center; }
.message { margin: .8rem 0; border: 1px solid var(--line); border-left: 4px solid var(--role, var(--quiet));
  border-radius: 6px; }
.message > header { display: flex; justify-content: space-between; gap: 1rem; padding: .2rem .8rem; font-size: .82rem;
  color: var(--quiet); background: var(--panel); border-bottom: 1px solid var(--line); border-radius: 0 6px 0 0; }
.message h4 { margin: 0; font-size: inherit; color: var(--role, var(--quiet)); overflow-wrap: anywhere; }
.role-system, .role-developer { --role: var(--system); }
.role-user { --role: var(--user); }
.role-assistant { --role: var(--assistant); }
.role-tool, .role-function { --role: var(--tool); }
.body { padding: .5rem .8rem; }
.body > :first-child { margin-top: 0; }
.body > :last-child { margin-bottom: 0; }
.cut { max-height: 24rem; overflow: hidden; mask-image: linear-gradient(#000 calc(100% - 4rem), transparent); }
.more { margin: .3rem .8rem .6rem; }
.prose, .reasoning { white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: plaintext; margin: .5rem 0; }
.reasoning { padding-left: .8rem; border-left: 3px solid var(--line); color: var(--quiet); }
.label { margin: .6rem 0 0; font-size: .78rem; color: var(--quiet); overflow-wrap: anywhere; }
.label + pre { margin-top: .1rem; }
pre { margin: .5rem 0; padding: .5rem .7rem; overflow: auto; border-radius: 6px; background: var(--code);
  font: .82rem/1.45 ui-monospace, "SFMono-Regular", "DejaVu Sans Mono", monospace; tab-size: 8; white-space: pre-wrap;
  overflow-wrap: anywhere; }
pre.diff { white-space: pre; overflow-wrap: normal; }
pre.command::before { content: "$ "; color: var(--quiet); }
pre.diff span { display: block; width: max-content; min-width: 100%; }
.added { color: var(--good); background: var(--good-paper); }
.removed { color: var(--bad); background: var(--bad-paper); }
.hunk { color: var(--hunk); }
.file { font-weight: bold; }
::highlight(found) { background-color: var(--mark); color: var(--ink); }
@media (max-width: 50rem) {
  body { display: block; height: auto; }
  #side { border-right: 0; }
  #list { max-height: 38vh; border-bottom: 3px solid var(--line); }
  #sheet { padding: .8rem .8rem 4rem; overflow: visible; }
  .keys { display: none; }
}
@media print { #side { display: none; } body { display: block; } .cut { max-height: none; mask-image: none; } }
"""
