import pytest

from rollmill.inference.model_identity import model_identity


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "step-1"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(100_000))
    return folder


def test_a_hub_id_stands_for_itself():
    assert model_identity("org/model") == "org/model"


def test_it_does_not_depend_on_place_and_what_trainers_leave(checkpoint):
    before = model_identity(str(checkpoint))
    assert before.startswith("sha256:")
    for name in (
        "optimizer.pt",
        "rng_state_0.pth",
        "trainer_state.json",
        "evaluation.json",
        "README.md",
        ".cache.json",
    ):
        (checkpoint / name).write_text("x")
    assert model_identity(str(checkpoint.rename(checkpoint.with_name("elsewhere")))) == before


def test_any_change_of_the_model_changes_it(checkpoint):
    seen = {model_identity(str(checkpoint))}
    (checkpoint / "config.json").write_text('{"a": 1}')
    seen.add(model_identity(str(checkpoint)))
    (checkpoint / "model.safetensors").write_bytes(bytes(99_999) + b"x")
    seen.add(model_identity(str(checkpoint)))
    (checkpoint / "tokenizer.json").write_text("{}")
    seen.add(model_identity(str(checkpoint)))
    (checkpoint / "tokenizer.json").rename(checkpoint / "tokenizer_config.json")
    seen.add(model_identity(str(checkpoint)))
    assert len(seen) == 5


def test_large_weights_are_sampled_from_first_to_last_byte(checkpoint):
    weights = checkpoint / "model.safetensors"
    with weights.open("wb") as file:
        file.truncate(20_000_000)
    seen = {model_identity(str(checkpoint))}
    for offset in (0, 19_999_999):
        with weights.open("r+b") as file:
            file.seek(offset)
            file.write(b"x")
        seen.add(model_identity(str(checkpoint)))
    assert len(seen) == 3
