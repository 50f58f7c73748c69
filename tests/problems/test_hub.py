import subprocess
import sys
from pathlib import Path

import pytest

from rollmill.errors import InputError
from tests.problems.conftest import make_png

PROMPTS = ["what?", "and <image>?", "text alone"]


def dataset_with_images(column: str):
    from datasets import Dataset, Features, Image, List, Value

    first, second = make_png(1), make_png(2)
    if column == "image":
        feature, cells = Image(), [{"bytes": first}, {"bytes": second}, None]
    else:
        feature, cells = List(Image()), [[{"bytes": first}, {"bytes": second}], [{"bytes": second}], []]
    features = Features({"prompt": Value("string"), "answer": Value("int64"), column: feature})
    return Dataset.from_dict({"prompt": PROMPTS, "answer": [1, 2, 3], column: cells}, features=features)


@pytest.mark.parametrize(("column", "counts"), [("image", [1, 1, 0]), ("images", [2, 1, 0])])
def test_saved_dataset_with_images(load, tmp_path: Path, column, counts):
    dataset_with_images(column).save_to_disk(tmp_path / "saved")
    loaded = load(str(tmp_path / "saved"))
    assert [problem.prompt for problem in loaded.problems] == PROMPTS
    assert [problem.answer for problem in loaded.problems] == ["1", "2", "3"]
    assert [len(problem.images) for problem in loaded.problems] == counts
    assert (loaded.report.path.parent / loaded.problems[0].images[0].path).read_bytes() == make_png(1)


def test_saved_dataset_dict(load, tmp_path: Path):
    from datasets import Dataset, DatasetDict

    train, test = (Dataset.from_dict({"question": [name], "label": [0.5]}) for name in ("train", "test"))
    DatasetDict({"train": train, "test": test}).save_to_disk(tmp_path / "saved")
    assert load(str(tmp_path / "saved")).problems[0].prompt == "train"
    assert load(str(tmp_path / "saved"), split="test").problems[0].prompt == "test"
    with pytest.raises(InputError, match="no split 'dev': choose one of train, test with --dataset_split"):
        load(str(tmp_path / "saved"), split="dev")
    (tmp_path / "saved" / "train" / "state.json").unlink()
    with pytest.raises(InputError, match="cannot load the directory"):
        load(str(tmp_path / "saved"))


def test_saved_single_split_under_another_name(load, tmp_path: Path):
    from datasets import Dataset

    Dataset.from_dict({"question": ["q"], "label": [1]}, split="test").save_to_disk(tmp_path / "saved")
    assert load(str(tmp_path / "saved"), split="test").report.count == 1
    with pytest.raises(InputError, match="no split 'train': it holds 'test' alone"):
        load(str(tmp_path / "saved"))


def test_folder_of_parquet_files(load, tmp_path: Path):
    folder = tmp_path / "parquet"
    folder.mkdir()
    for shard in range(2):
        dataset_with_images("images").to_parquet(folder / f"train-{shard:05}-of-00002.parquet")
    loaded = load(str(folder), max_problems=5)
    assert loaded.report.count == 5
    assert [len(problem.images) for problem in loaded.problems] == [2, 1, 0, 2, 1]
    with pytest.raises(InputError, match=r"(?s)split tset.*\['train'\].*--dataset_split"):
        load(str(folder), split="tset")


def test_folder_that_cannot_be_loaded(load, tmp_path: Path):
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(InputError, match="doesn't contain any data files"):
        load(str(folder))
    (folder / "a.jsonl").write_bytes(b'{"a": 1}\n{bad\n')
    with pytest.raises(InputError, match="cannot load the directory") as caught:
        load(str(folder))
    assert "\n" not in str(caught.value)


def write_clone(folder: Path, *names: str, card: str = "") -> Path:
    """Make a clone of a hub data set; each question is the path of its file."""
    from datasets import Dataset

    for name in names:
        path = folder / f"{name}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        Dataset.from_dict({"question": [name], "answer": ["1"]}).to_parquet(path)
    (folder / "dataset_infos.json").write_text("{}")
    if card:
        (folder / "README.md").write_text(f"---\nconfigs:\n{card}---\n# A data set\n")
    return folder


def config(name: str, *splits: str) -> str:
    files = "".join(f"  - split: {split}\n    path: {name}/{split}-*\n" for split in splits)
    return f"- config_name: {name}\n  data_files:\n{files}"


NAMES = ("main/train", "main/test", "socratic/train", "socratic/test")
CARD = config("main", "train", "test") + config("socratic", "train", "test")


@pytest.mark.parametrize("card", [CARD, ""], ids=["card", "folders"])
def test_clone_with_configs(load, tmp_path: Path, card):
    folder = write_clone(tmp_path / "clone", *NAMES, card=card)
    for name in NAMES:
        choice, split = name.split("/")
        loaded = load(f"{folder}:{choice}", split=split, into=name.replace("/", "-"))
        assert [problem.prompt for problem in loaded.problems] == [name]
    with pytest.raises(InputError, match=rf"--dataset {folder}:"):
        load(str(folder))
    with pytest.raises(InputError, match=r"choose one of its splits with --dataset_split"):
        load(f"{folder}:main", split="dev")


def test_clone_with_a_default_and_with_an_unknown_config(load, tmp_path: Path):
    card = CARD.replace("config_name: main\n", "config_name: main\n  default: true\n")
    folder = write_clone(tmp_path / "clone", *NAMES, card=card)
    assert load(str(folder)).problems[0].prompt == "main/train"
    with pytest.raises(InputError, match=rf"'nope' not found.*as in --dataset {folder}:main"):
        load(f"{folder}:nope")


@pytest.mark.parametrize("names", [("data/train", "data/test"), ("train", "test")])
def test_clone_without_configs(load, tmp_path: Path, names):
    folder = write_clone(tmp_path / "clone", *names)
    assert [load(str(folder), split=split).problems[0].prompt for split in ("train", "test")] == list(names)


def test_clone_with_git_lfs_pointers_is_explained(load, tmp_path: Path):
    folder = write_clone(tmp_path / "clone", "data/train")
    file = folder / "data" / "train-00000-of-00001.parquet"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n")
    for dataset in (folder, file):
        with pytest.raises(InputError, match="git lfs pull"):
            load(str(dataset))


@pytest.mark.slow
def test_unreachable_hub_is_reported_in_one_line(tmp_path: Path):
    code = f"""
import time
time.sleep = lambda seconds: None  # the hub's client waits between its tries
from pathlib import Path
from rollmill.errors import InputError
from rollmill.problems import ProblemSource, load_problems
try:
    load_problems(ProblemSource(dataset="org/name", split="test"), Path({str(tmp_path / "run")!r}))
except InputError as error:
    print(error)
"""
    environment = {
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HUB_ETAG_TIMEOUT": "1",
        "HF_HUB_DOWNLOAD_TIMEOUT": "1",
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    (line,) = done.stdout.splitlines()
    assert "cannot load org/name (split test)" in line
    assert "check the network and HF_ENDPOINT (http://127.0.0.1:9)" in line


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (
            ValueError("Unknown split \"dev\". Should be one of ['train', 'test']."),
            "['train', 'test'].; choose one of its",
        ),
        (FileNotFoundError("Dataset 'org/name' doesn't exist on the Hub"), "check the name, and HF_TOKEN"),
        (
            FileNotFoundError("Dataset 'org/name' is a gated dataset on the Hub."),
            "/datasets/org/name, then set HF_TOKEN",
        ),
        (
            ValueError("Config name is missing. Please pick one: ['main']"),
            "write the config after the name, as in --dataset org/name:main",
        ),
        (RuntimeError("several\nlines"), "several lines"),
    ],
)
def test_refusal_of_the_hub_is_explained(load, monkeypatch, error, advice):
    import datasets

    def refuse(name, config, *, split):
        assert (name, config, split) == ("org/name", "main", "dev")
        raise error

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(InputError) as caught:
        load("org/name:main", split="dev")
    assert "cannot load org/name:main (split dev)" in str(caught.value)
    assert advice in str(caught.value)
    assert "\n" not in str(caught.value)
