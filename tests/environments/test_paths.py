from pathlib import Path

import pytest
from pydantic import BaseModel

from rollmill.environments.paths import PathText, absolute_paths
from rollmill.environments.search.settings import SearchSettings


class Settings(BaseModel):
    words: Path = Path("words.txt")
    more: Path | None = None
    texts: PathText = ""
    name: str = "not/a/path"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, {"words": "{here}/words.txt"}),
        ({"words": "/there/w", "more": "m"}, {"words": "/there/w", "more": "{here}/m"}),
        ({"texts": "../t"}, {"words": "{here}/words.txt", "texts": "{here}/../t"}),
        ({"texts": "~/t", "words": "~/w"}, {"words": "/home/me/w", "texts": "/home/me/t"}),
        ({"texts": "s3://bucket/t"}, {"words": "{here}/words.txt"}),
    ],
)
def test_settings_that_name_files_become_absolute(tmp_path, monkeypatch, values, expected):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert absolute_paths(Settings(**values)) == {name: path.format(here=tmp_path) for name, path in expected.items()}


def test_corpus_setting_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute_paths(SearchSettings(corpus="mine")) == {"corpus": str(tmp_path / "mine")}
    assert absolute_paths(SearchSettings()) == {}
