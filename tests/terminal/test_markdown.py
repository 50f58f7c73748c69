import html.parser
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.terminal.escapes import visible, visible_line
from rollmill.terminal.markdown import fenced, markdown_code, markdown_table, plain_markdown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a|b", r"a\|b"),
        ("`code`", r"\`code\`"),
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("<!-- rollmill:end -->", "&lt;!-- rollmill:end --&gt;"),
        ("[x](http://a)", r"\[x\](http://a)"),
        ("![x](a)", r"!\[x\](a)"),
        ("**bold** _it_", r"\*\*bold\*\* \_it\_"),
        ("# title\n\n---\nx", r"\# title --- x"),
        ("a\x1b[2Jb", r"a\\x1b\[2Jb"),
        ("a\u202eb\u200bc", r"a\\u202eb\\u200bc"),
        ("a\\|b", r"a\\\|b"),
        ("&lt;", "&amp;lt;"),
    ],
)
def test_text_from_outside(text, shown):
    assert plain_markdown(text) == shown


class Text(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text = [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


@given(st.text(max_size=60))
def test_escaped_text_renders_unchanged_and_without_markup(text):
    escaped = plain_markdown(text)
    assert escaped.isprintable()
    reader = Text()
    reader.feed(re.sub(r"\\([\\`*_\[\]|#~$])", lambda match: f"&#{ord(match[1])};", escaped))
    reader.close()
    assert reader.tags == []
    assert reader.text == visible_line(text)


@given(st.lists(st.text(max_size=20), min_size=2, max_size=2))
def test_a_table_keeps_its_shape(cells):
    lines = markdown_table(("a", "b"), [cells]).split("\n")
    assert len(lines) == 3
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", lines[2])) == 3


@given(st.text(max_size=40))
def test_a_fence_ends_where_the_text_does(text):
    opening, *inner, closing = fenced(visible(text)).split("\n")
    assert opening == closing
    assert "\n".join(inner) == visible(text)
    assert not any(line.strip().startswith(opening) for line in inner)


@given(st.text(alphabet="`ab ", max_size=20))
def test_code_within_a_line(text):
    code = markdown_code(text)
    runs = re.findall("`+", code)
    assert not runs or runs[0] == runs[-1]
    assert runs[1:-1] == [] or runs[0] not in runs[1:-1]
