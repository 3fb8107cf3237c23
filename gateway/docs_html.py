"""Elements of HTML, and the style that they are shown in: no script, nothing that is fetched."""

import base64
import hashlib
from xml.etree.ElementTree import Element, tostring

STYLE = """
:root { color-scheme: light dark; --text: #1c2128; --quiet: #57606a; --back: #fff;
  --raised: #f5f7f9; --line: #d5dbe1; --accent: #0b57a4; --warn: #8a4600; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e8ed; --quiet: #a3adb8; --back: #14181d;
  --raised: #1d232a; --line: #38414b; --accent: #84bdf7; --warn: #f0b36a; } }
* { box-sizing: border-box; }
html { scroll-padding-top: 1rem; }
body { margin: 0; background: var(--back); color: var(--text);
  font: 1rem/1.55 system-ui, sans-serif; }
a { color: var(--accent); }
a:focus-visible, pre:focus-visible, summary:focus-visible { outline: 2px solid var(--accent);
  outline-offset: 2px; }
.skip { position: absolute; left: -99rem; }
.skip:focus { left: 1rem; top: 1rem; padding: .5rem; background: var(--back); }
nav { padding: 1.5rem; border-bottom: 1px solid var(--line); font-size: .9rem; }
nav p { margin: 1.25rem 0 .25rem; font-weight: 600; }
nav ul { margin: 0; padding: 0; list-style: none; }
nav li a { display: block; padding: .15rem 0; text-decoration: none; overflow-wrap: anywhere; }
nav li a:hover { text-decoration: underline; }
main { padding: 1.5rem; max-width: 62rem; min-width: 0; }
h1 { margin: 0; font-size: 1.7rem; line-height: 1.25; }
h2 { margin: 3rem 0 0; font-size: 1.3rem; }
h3 { margin: 2.5rem 0 .25rem; padding-top: 1.25rem; border-top: 1px solid var(--line);
  font-size: 1.05rem; overflow-wrap: anywhere; }
h2 + section h3 { margin-top: 0; padding-top: .75rem; border-top: 0; }
h4 { margin: 1.75rem 0 .5rem; font-size: .95rem; }
p { margin: .5rem 0; }
code, pre { font: .86rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { margin: .5rem 0; padding: .8rem 1rem; overflow-x: auto; background: var(--raised);
  border: 1px solid var(--line); border-radius: 6px; }
.method { margin-right: .5rem; padding: .1rem .45rem; border: 1px solid currentColor;
  border-radius: 4px; color: var(--accent); font: 600 .75rem/1.5 ui-monospace, monospace; }
.quiet, caption { color: var(--quiet); }
.tag { color: var(--warn); font-size: .8rem; white-space: nowrap; }
.scroll { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-size: .9rem; }
caption { padding: .25rem 0; text-align: left; }
th, td { padding: .4rem .8rem .4rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; font-weight: normal; }
thead th { color: var(--quiet); font-size: .8rem; }
tbody th { min-width: 9rem; }
td { overflow-wrap: break-word; }
td:last-child { min-width: 14rem; }
td.kind { min-width: 8rem; }
.in1 { padding-left: 1rem; } .in2 { padding-left: 2rem; } .in3 { padding-left: 3rem; }
.in4 { padding-left: 4rem; }
summary { margin: .5rem 0; cursor: pointer; color: var(--accent); font-size: .9rem; }
@media (min-width: 64rem) { body { display: grid; grid-template-columns: 17rem 1fr; }
  nav { position: sticky; top: 0; height: 100vh; overflow-y: auto; border-bottom: 0;
    border-right: 1px solid var(--line); } main { padding: 2rem 3rem; } }
@media print { :root { color-scheme: light; --text: #000; --quiet: #444; --back: #fff;
  --raised: #fff; --line: #bbb; --accent: #000; --warn: #000; } html { font-size: 9pt; }
  body { display: block; } nav { display: none; } main { max-width: none; padding: 0; }
  pre { white-space: pre-wrap; }
  h2, h3, h4 { break-after: avoid; } tr { break-inside: avoid; }
  details::details-content { content-visibility: visible; height: auto; } }
"""

_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()

HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
"""The page may load nothing, run nothing, send nothing and be framed by nobody."""


def tag(kind: str, /, *children: str | Element, **attributes: str) -> Element:
    """Return an element; its text is escaped when it is written.

    Attributes are named as Python can: `class_` for class, `aria_label` for aria-label.
    """
    named = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
    element = Element(kind, named)
    for child in children:
        if isinstance(child, Element):
            element.append(child)
        elif len(element):
            element[-1].tail = (element[-1].tail or "") + child
        else:
            element.text = (element.text or "") + child
    return element


def table(head: list[str], rows: list[Element], caption: str) -> Element:
    """Return a table that scrolls by itself where it is too wide."""
    titles = [tag("th", title, scope="col") for title in head]
    return tag(
        "div",
        tag(
            "table",
            tag("caption", caption),
            tag("thead", tag("tr", *titles)),
            tag("tbody", *rows),
        ),
        class_="scroll",
    )


def written(title: str, *body: Element) -> bytes:
    """Return a whole page."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", STYLE),
    )
    page = tag("html", head, tag("body", *body), lang="en")
    return f"<!DOCTYPE html>\n{tostring(page, 'unicode', method='html')}".encode()
