"""Data sets from others: no code in the folder is run, and no file outside of it is read."""

import json
import pickle

import pytest

from rollmill.errors import InputError
from rollmill.exports.card import read_sections
from rollmill.jobs.training.data_files import find_data
from rollmill.problems.hub import read_directory
from rollmill.problems.source import ProblemSource


class Payload:
    def __init__(self, marker):
        self._marker = str(marker)

    def __reduce__(self):
        return open, (self._marker, "w")


def test_script_or_pickle_in_a_data_set_is_not_executed(tmp_path, monkeypatch):
    marker = tmp_path / "pwned"
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    for name in ("script", "pickle", "both"):
        folder = tmp_path / name
        folder.mkdir()
        if name != "pickle":
            (folder / f"{name}.py").write_text(f"open({str(marker)!r}, 'w')\n")
        if name != "script":
            (folder / "data.pkl").write_bytes(pickle.dumps(Payload(marker)))
            (folder / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files: data.pkl\n---\n")
        with pytest.raises(InputError) as refused:
            list(read_directory(folder, None, ProblemSource(dataset=str(folder))))
        assert str(folder) in str(refused.value)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["../secret.jsonl", "/etc/passwd", "a/../../secret.jsonl", "", 3])
def test_a_card_names_files_of_its_folder_alone(tmp_path, name):
    (tmp_path / "secret.jsonl").write_text(json.dumps({"messages": [{"role": "user", "content": "x"}]}) + "\n")
    folder = tmp_path / "export"
    folder.mkdir()
    config = json.dumps({"name": "sft", "files": {"train": name}})
    card = f"text\n\n<!-- rollmill:export {config} -->\n\nsection\n\n<!-- rollmill:end -->\n"
    (folder / "README.md").write_text(card)
    assert list(read_sections(card)) == []
    with pytest.raises(InputError, match="has no card of an export that trains"):
        find_data([str(folder)], [])


def test_sections_are_found_between_what_people_wrote():
    config = {"name": "a", "files": {"train": "a.jsonl"}}
    ours = f"<!-- rollmill:export {json.dumps(config)} -->\n\nA\n\n<!-- rollmill:end -->\n"
    card = f"# T\n<!-- rollmill:export {{no json}} -->\n\nx\n\n<!-- rollmill:end -->\n\n{ours}\ntext\n{ours}"
    sections = list(read_sections(card))
    assert [section.config for section in sections] == [config, config]
    assert [card[section.begin : section.end] for section in sections] == [ours, ours]
