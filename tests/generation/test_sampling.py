import pytest
from pydantic import ValidationError

from rollmill.errors import InputError
from rollmill.generation.parameters import SamplingParameters
from rollmill.generation.sampling import OPTIONAL_FIELDS, Sampling, request_context

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
ALL = {
    "top_k": 20,
    "min_p": 0.05,
    "presence_penalty": 0.5,
    "frequency_penalty": -0.5,
    "repetition_penalty": 1.1,
    "stop": ["\n\n", "END"],
    "reasoning_effort": "low",
    "chat_template_kwargs": {"enable_thinking": False},
    "extra_body": {"min_tokens": 8, "tools": [WEATHER]},
}


def test_what_is_unset_is_in_neither_identity_nor_request():
    assert Sampling().model_dump() == {"temperature": 1.0, "top_p": 1.0, "max_tokens": 1024, "seed": 0}
    assert Sampling().request_fields() == {"temperature": 1.0, "top_p": 1.0, "max_tokens": 1024}


def test_what_is_set_is_in_both():
    sampling = SamplingParameters(**ALL).sampling_of_flags
    assert set(ALL) == set(OPTIONAL_FIELDS)
    dumped = sampling.model_dump(mode="json")
    assert {name: dumped[name] for name in ALL} == ALL
    body = ALL | ALL["extra_body"]
    del body["extra_body"]
    assert {name: value for name, value in sampling.request_fields().items() if name in body} == body | {
        "stop": ("\n\n", "END")
    }


@pytest.mark.parametrize("value", [-1, 0])
def test_what_turns_something_off_is_said(value):
    name = "top_k" if value else "min_p"
    assert Sampling(**{name: value}).request_fields()[name] == value


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"top_k": 0}, "must be -1, for all tokens, or at least 1"),
        ({"top_k": -2}, "must be -1, for all tokens, or at least 1"),
        ({"min_p": 1.1}, "less than or equal to 1"),
        ({"min_p": float("nan")}, "less than or equal to 1"),
        ({"repetition_penalty": 0}, "greater than 0"),
        ({"presence_penalty": 3}, "less than or equal to 2"),
        ({"stop": ["a", ""]}, "an empty text would end every completion"),
        ({"stop": ["a"] * 65}, "65 texts are too many: give at most 64"),
        ({"chat_template_kwargs": "[1]"}, "is not a JSON object"),
        ({"chat_template_kwargs": "{" * 100_000}, "is not a JSON object"),
        ({"chat_template_kwargs": {"messages": []}}, "messages is decided by the server"),
        ({"chat_template_kwargs": {"tokenize": True}}, "tokenize is decided by the server"),
        ({"chat_template_kwargs": {"continue_final_message": True}}, "continue_final_message is decided by the server"),
        ({"extra_body": '{"a": NaN}'}, "cannot be sent as JSON"),
        ({"extra_body": {"a": 2**70}}, "cannot be sent as JSON"),
        ({"extra_body": {"a": {1, 2}}}, "cannot be sent as JSON"),
        ({"extra_body": {"seed": 1}}, "seed has a flag of its own: give --seed"),
        ({"extra_body": {"top_k": 1}}, "top_k has a flag of its own: give --top_k"),
        ({"extra_body": {"stream": True}}, "stream is decided by the job itself"),
        ({"extra_body": {"chat_template": "x"}}, "chat_template would make another prompt than the rows record"),
        ({"extra_body": {"n": 2}}, "n is decided by the job itself"),
        ({"reasoning_effort": ""}, "at least 1 character"),
    ],
)
def test_invalid_values_are_refused(fields, words):
    for model in (SamplingParameters, Sampling):
        with pytest.raises(ValidationError, match=words):
            model(**fields)


def test_json_is_read_from_text_and_from_mappings():
    text = SamplingParameters(chat_template_kwargs='{"enable_thinking": false}', stop="END")
    assert text.chat_template_kwargs == {"enable_thinking": False}
    assert text.stop == ("END",)
    assert SamplingParameters(chat_template_kwargs="").chat_template_kwargs == {}


@pytest.mark.parametrize(
    ("body", "context"),
    [
        ({"temperature": 1.0}, {}),
        ({"tools": [WEATHER]}, {"tools": [WEATHER]}),
        ({"tools": [], "chat_template_kwargs": {}}, {}),
        ({"reasoning_effort": "low"}, {"chat_template_kwargs": {"enable_thinking": True, "reasoning_effort": "low"}}),
        (
            {"reasoning_effort": "none"},
            {"chat_template_kwargs": {"enable_thinking": False, "reasoning_effort": "none"}},
        ),
        (
            {"reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": False, "x": 1}},
            {"chat_template_kwargs": {"enable_thinking": False, "x": 1, "reasoning_effort": "low"}},
        ),
    ],
)
def test_what_a_template_is_given_beside_messages(body, context):
    assert request_context(body) == context


RECOMMENDED = '{"temperature": 0.6, "top_k": 20, "top_p": 0.95, "eos_token_id": 2}'


def test_sampling_of_the_model_fills_in_what_is_not_given(tmp_path):
    (tmp_path / "generation_config.json").write_text(RECOMMENDED)
    sampling = SamplingParameters(sampling="model", top_p=1.0).sampling_of(str(tmp_path))
    assert sampling == Sampling(temperature=0.6, top_k=20, top_p=1.0, max_tokens=2048)
    assert SamplingParameters(top_p=1.0).sampling_of(str(tmp_path)) == Sampling(max_tokens=2048)


def test_what_a_form_sends_at_its_default_is_not_given(tmp_path):
    (tmp_path / "generation_config.json").write_text(RECOMMENDED)
    sent = SamplingParameters().model_dump() | {"sampling": "model", "top_k": 5}
    sampling = SamplingParameters.model_validate(sent).sampling_of(str(tmp_path))
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.6, 0.95, 5)


def test_a_recommendation_that_no_request_takes_is_refused(tmp_path):
    (tmp_path / "generation_config.json").write_text('{"top_p": 7}')
    with pytest.raises(InputError, match="recommends top_p 7"):
        SamplingParameters(sampling="model").sampling_of(str(tmp_path))
