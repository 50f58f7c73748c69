"""The page of trajectories as a file."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.reports.viewing.pages import embedded, write_pages

HOSTILE = (
    "</script><script>document.title='owned'</script><!--<script>\u2028<img src=x onerror=\"document.title='owned'\">"
)


def facts(row, **more):
    usual = {"row": row, "instance_id": f"p{row}", "sample_id": 0, "reward": 1.0, "success": True, "status": "ok"}
    return {**usual, **more}


def record(*contents, **more):
    return json.dumps({"messages": [{"role": "user", "content": content} for content in contents], **more}).encode()


class Page(HTMLParser):
    """What a browser would find in the file."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.data, self.title, self.policy, self.text = [], {"facts": [], "trajectory": []}, "", "", ""
        self.inside = []
        self.html = path.read_text(encoding="utf-8")
        self.feed(self.html)
        self.close()

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        self.inside.append((tag, attributes.get("class")))
        if attributes.get("http-equiv") == "Content-Security-Policy":
            self.policy = attributes["content"]
        if tag in {"meta", "input"}:
            self.inside.pop()

    def handle_endtag(self, tag):
        self.inside.pop()

    def handle_data(self, data):
        tag, kind = self.inside[-1] if self.inside else ("", "")
        if tag == "script" and kind:
            self.data[kind].append(json.loads(data))
        elif tag == "title":
            self.title += data
        elif tag not in {"script", "style"}:
            self.text += data


def written(tmp_path, rows, title="runs", **options):
    write_pages(tmp_path / "page.html", title, rows, **options)
    return Page(tmp_path / "page.html")


def test_the_facts_and_the_trajectory_of_each_rollout(tmp_path):
    more = {"claimed_success": True, "success": False, "error_type": "timeout", "exit_status": "LimitsExceeded"}
    answer = {"response": {"json": {"success": False, "log": "a\nb"}}}
    line = record(
        "hi\n```sh\nls\n```", "", git_diff="+a\n", problem_statement="do", evaluation_info=answer, error="late"
    )
    page = written(tmp_path, [(facts(0, model_calls=3, speedup=1.5, tokens=9), record("a")), (facts(7, **more), line)])
    first, second = page.data["facts"]
    assert first == {
        "row": 0,
        "id": "p0",
        "sample": 0,
        "reward": 1.0,
        "state": "success",
        "denied": None,
        "unparseable": False,
        "speedup": 1.5,
        "error": None,
        "exit": None,
        "finish": None,
        "calls": 3,
        "tokens": 9,
        "length": 1,
    }
    assert (second["row"], second["state"], second["error"]) == (7, "unsuccessful", "timeout")
    assert second["denied"] == "Claimed success, but its evaluation failed."
    assert page.data["trajectory"][1] == {
        "turns": [["user", "", [["text", "hi", ""], ["code", "ls", "sh"]], False], ["user", "", [], False]],
        "silent": "No messages were recorded.",
        "problem": "do",
        "diff": "+a",
        "evaluation": {"facts": [["success", "false"]], "outputs": [["log", [["output", "a\nb", ""]]]]},
        "verdict": {"facts": [], "outputs": []},
        "error": "late",
        "unreadable": "",
    }


def test_nothing_in_the_data_is_markup(tmp_path):
    line = record(HOSTILE, git_diff=HOSTILE, error=HOSTILE, problem_statement=HOSTILE, verdict={HOSTILE: HOSTILE})
    hostile = facts(0, instance_id=HOSTILE, exit_status=HOSTILE, error_type=HOSTILE)
    page = written(tmp_path, [(hostile, line), (facts(1), HOSTILE.encode())], title=HOSTILE)
    assert page.tags.count("script") == 5  # two for each row, and the program
    assert "img" not in page.tags
    shown = HOSTILE.replace("\u2028", "\\u2028")
    assert page.title == shown
    assert page.data["facts"][0]["id"] == shown
    assert page.data["trajectory"][0]["turns"][0][2] == [["text", shown, ""]]
    assert page.data["trajectory"][1]["unreadable"].startswith("The record is not valid JSON")
    assert "\u2028" not in page.html


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_embedded_json_is_the_same_value_and_holds_no_markup(text):
    shown = embedded({"text": [text]}).decode()
    assert json.loads(shown) == {"text": [text]}
    assert not set(shown) & set("<>&\u2028\u2029")


def test_page_is_self_contained(tmp_path):
    page = written(tmp_path, [(facts(0), record("see https://example.org/a.png"))])
    outside = re.sub(r'<script type="application/json".*?</script>', "", page.html, flags=re.DOTALL)
    assert not re.search(r"https?://|\ssrc=|url\(|@import|<link|innerHTML|insertAdjacentHTML|\beval\(", outside)
    assert page.policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in page.policy


@pytest.mark.parametrize(
    ("left_out", "words"),
    [(0, None), (1, "1 more is not on this page."), (1234, "1,234 more are not on this page.")],
)
def test_number_of_missing_rollouts_is_shown(tmp_path, left_out, words):
    text = written(tmp_path, [], left_out=left_out).text
    assert ("on this page" in text) == (words is not None)
    assert (words or "") in text


def test_no_trajectory_at_all_makes_a_page(tmp_path):
    page = written(tmp_path, [])
    assert page.data == {"facts": [], "trajectory": []}
    assert page.html.endswith("</html>\n")


def test_long_logs_are_cut_and_messages_are_not(tmp_path):
    answer = {"response": {"json": {"log": "x" * 50_000 + "end"}}}
    page = written(tmp_path, [(facts(0), record("y" * 50_000, evaluation_info=answer))])
    sheet = page.data["trajectory"][0]
    assert len(sheet["turns"][0][2][0][1]) == 50_000
    (_, ((_, head, _), left_out, (_, tail, _))) = sheet["evaluation"]["outputs"][0]
    assert left_out == ["left_out", "30,003", ""]
    assert (len(head) + len(tail), tail[-3:]) == (20_000, "end")


def test_values_that_json_cannot_have(tmp_path):
    line = b'{"messages": [{"role": "user", "content": "a"}], "reward": NaN, "verdict": {"error": Infinity}}'
    page = written(tmp_path, [(facts(0, reward=float("nan"), speedup=float("inf")), line)])
    assert page.data["facts"][0]["reward"] is None
    assert page.data["facts"][0]["speedup"] is None
    assert page.data["trajectory"][0]["turns"][0][2] == [["text", "a", ""]]


def test_a_page_is_written_whole_or_not_at_all(tmp_path):
    def broken():
        yield facts(0), record("a")
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        written(tmp_path, broken())
    assert not list(tmp_path.iterdir())


def test_rows_are_written_as_they_come(tmp_path):
    """1,000 trajectories of 40 kB must not be held in memory."""
    program = """
import resource, sys
from pathlib import Path
from rollmill.reports.viewing.pages import write_pages

def rows(count):
    for row in range(count):
        yield {"row": row}, b'{"messages": [{"role": "user", "content": "' + b"x" * 40_000 + b'"}]}'

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

write_pages(Path(sys.argv[1]), "t", rows(10))
before = peak()
write_pages(Path(sys.argv[1]), "t", rows(1_000))
print(peak() - before)
"""
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "page.html")], capture_output=True, text=True, check=True
    )
    assert (tmp_path / "page.html").stat().st_size > 40_000_000
    assert int(result.stdout) < 10_000  # KiB
