"""vLLM's flags of the pair engine."""

import shlex

import pytest

from rollmill.errors import InputError
from rollmill.inference.machine import flag_value
from rollmill.jobs.optimal_sampling.pair_flags import check_flags, number, pair_flags

OFF = ["--no-enable-chunked-prefill"]


def step_tokens(*arguments, context, batch_size=8, user=""):
    parts = shlex.split(user)
    return int(pair_flags([*arguments, *parts], context=context, batch_size=batch_size, user_arguments=parts)[1])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--tensor-parallel-size 2", "--tensor-parallel-size 2: the pair engine is on one device: leave it out"),
        ("--tensor_parallel_size=2", "--tensor-parallel-size 2"),
        ("-tp 4", "-tp 4: the pair engine is on one device"),
        ("-tp4", "-tp 4"),
        ("-pp=2", "-pp 2"),
        ("--pipeline-parallel-size 2", "--pipeline-parallel-size 2"),
        ("--data-parallel-size 2", "--data-parallel-size 2"),
        ("--seed 1 -dcp 2", "-dcp 2"),
        ("--stream-interval 10", "--stream-interval 10: the pair engine reads every token at its step: leave it out"),
        ("--long-prefill-token-threshold 64", "reads both prompts of a sample in one step"),
        ("--speculative-config '{}'", "--speculative-config: the pair engine draws one token a step"),
        ("-sc={}", "-sc: the pair engine draws one token a step"),
    ],
)
def test_flags_that_break_pairs_are_refused(flags, message):
    with pytest.raises(InputError) as caught:
        check_flags(shlex.split(flags))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("flags", ["", "-tp 1", "--tensor-parallel-size=1 --stream-interval 1", "--max-num-seqs 4"])
def test_other_flags_are_accepted(flags):
    check_flags(shlex.split(flags))


def test_a_step_has_room_for_both_prompts_up_to_a_limit():
    assert step_tokens(context=2048) == 4096
    assert step_tokens(context=131_072) == 16_384
    assert step_tokens(context=None) == 16_384
    assert step_tokens(context=131_072, user="--max-model-len 4k") == 8000
    assert step_tokens(context=64, batch_size=256) == 512


def test_a_step_has_room_for_a_whole_context_where_prompts_are_never_split():
    assert step_tokens(*OFF, context=131_072) == 131_072
    assert step_tokens(*OFF, context=131_072, user="--max-model-len 20000") == 20_000
    assert step_tokens(*OFF, context=131_072, user="--enable-chunked-prefill") == 16_384


def test_a_larger_step_of_the_user_counts_and_a_smaller_one_is_refused():
    assert step_tokens(context=2048, user="--max-num-batched-tokens 8192") == 8192
    for value in ("64", "auto"):
        with pytest.raises(InputError, match=f"--max-num-batched-tokens {value}: the pair engine sets 4096, so that"):
            step_tokens(context=2048, user=f"--max_num_batched_tokens {value}")


def test_flags_of_one_value_are_set_to_it():
    flags = pair_flags([], context=2048, batch_size=8, user_arguments=[])
    assert flag_value(flags, "--stream-interval") == "1"
    assert flag_value(flags, "--long-prefill-token-threshold") == "0"


def test_numbers_are_read_as_vllm_reads_them():
    assert [number(text) for text in ("4096", "16k", "16K", "1.5k", "1M")] == [4096, 16_000, 16_384, 1500, 1 << 20]
    assert [number(text) for text in (None, "auto", "-1", "x")] == [None] * 4
