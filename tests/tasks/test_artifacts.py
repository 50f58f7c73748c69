from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from rollmill.terminal.markdown import fenced
from tasks.artifacts import _share


@pytest.mark.parametrize(("done", "total", "share"), [(0, None, 0.0), (1, 4, 25.0), (4, 4, 100.0), (0, 0, 100.0)])
def test_progress_in_percent(done, total, share):
    snapshot = SimpleNamespace(done=done, total=total)
    assert _share(cast(Any, SimpleNamespace(snapshot=lambda: snapshot))) == share


@pytest.mark.parametrize(
    "text", ["plain", "a\n```\n<img src=x onerror=alert(1)>\n[x](javascript:alert(1))", "`````", ""]
)
def test_fence_is_longer_than_any_in_the_text(text):
    fence, *lines, end = fenced(text).split("\n")
    assert fence == end
    assert set(fence) == {"`"}
    assert "\n".join(lines) == text
    assert fence not in text
