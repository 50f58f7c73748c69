import orjson
import pytest

from rollmill.jobs.training.stop_tokens import read_stop_ids, write_generation_config


def config(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "stops"),
    [
        ('{"eos_token_id": 2}', [2]),
        ('{"eos_token_id": [2, 7]}', [2, 7]),
        ('{"eos_token_id": null}', [5]),
        ("{}", [5]),
        ("[", [5]),
    ],
)
def test_stop_ids_are_read_from_the_generation_config_or_the_model_config(tmp_path, text, stops):
    model = config(tmp_path / "config.json", '{"eos_token_id": 5}')
    assert read_stop_ids(config(tmp_path / "generation_config.json", text), model) == stops
    assert read_stop_ids(None, model) == [5]
    assert read_stop_ids(None, None) == []


def test_other_settings_of_the_generation_config_stay(tmp_path):
    base = config(tmp_path / "base.json", '{"eos_token_id": 2, "temperature": 0.6}')
    write_generation_config(tmp_path / "new.json", base, [2, 7])
    assert orjson.loads((tmp_path / "new.json").read_bytes()) == {"eos_token_id": [2, 7], "temperature": 0.6}
