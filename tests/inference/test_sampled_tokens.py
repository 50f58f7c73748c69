"""Tokens in a server's response."""

from __future__ import annotations

from array import array

import pytest

from rollmill.inference.sampled_tokens import SampledTokens, TokenSource, read_sampled_tokens

SOURCE = TokenSource("0123456789abcdef", "processed_logprobs")
CONTENT = [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}, {"token": "b", "logprob": -9999.0}]


def read(prompt=(1, 2), ids=(3, 4), logprobs=CONTENT):
    choice = {"token_ids": list(ids) if isinstance(ids, tuple) else ids, "logprobs": {"content": logprobs}}
    return read_sampled_tokens(
        {"prompt_token_ids": list(prompt) if isinstance(prompt, tuple) else prompt}, choice, SOURCE
    )


def test_ids_and_log_probabilities_are_read():
    assert read() == SampledTokens(array("I", [1, 2]), array("I", [3, 4]), array("f", [-0.5, -9999.0]), SOURCE)


def test_ids_alone_are_tokens():
    tokens = read(logprobs=None)
    assert (tokens.ids, tokens.logprobs) == (array("I", [3, 4]), None)


def test_an_empty_answer_has_tokens():
    assert read(ids=(), logprobs=None).ids == array("I")


@pytest.mark.parametrize("ids", [None, "34", (3, -1), (3, 2**32), (3, 4.0), (3, True), (3, None), {"0": 3}])
def test_ids_that_are_none_are_not_kept(ids):
    assert read(ids=ids) is None
    assert read(prompt=ids) is None


@pytest.mark.parametrize(
    "logprobs",
    [
        [{"logprob": -0.5}],
        [{"logprob": -0.5}] * 3,
        [{"logprob": -0.5}, {"logprob": None}],
        [{"logprob": -0.5}, {"logprob": 0.5}],
        [{"logprob": -0.5}, {"logprob": -1e300}],
        [{"logprob": -0.5}, {"logprob": float("nan")}],
        [{"logprob": -0.5}, -0.5],
        "ab",
    ],
)
def test_log_probabilities_that_are_none_are_left_out(logprobs):
    tokens = read(logprobs=logprobs)
    assert (tokens.ids, tokens.logprobs) == (array("I", [3, 4]), None)


def test_an_answer_without_tokens_has_none():
    assert read_sampled_tokens({}, {}, SOURCE) is None
    assert read_sampled_tokens({"prompt_token_ids": []}, {"token_ids": []}, SOURCE) is None
