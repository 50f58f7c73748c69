"""Rejection sampling with recorded tokens, from the request to the training sequence."""

from rollmill.exports.token_sequences import IGNORED, join_calls
from rollmill.generation.token_file import TokenReader
from rollmill.inference.sampled_tokens import TokenSource
from rollmill.inference.script import encode_message, render_prompt
from rollmill.inference.scripted import Conversation, Script, ScriptedAnswer, ScriptedServer
from tests.generation.run_factory import opened
from tests.generation.test_chat import make

SOURCE = TokenSource("0123456789abcdef", "processed_logprobs")


def recorded(folder, answer, **config):
    """The journal's rollout of one problem, its tokens, and the server."""
    script = Script(conversations=[Conversation(answers=[answer])])
    with opened(folder, rows=1, num_rollout=1) as run, ScriptedServer(script) as server:
        (completed,) = make(run, server.base_url, token_source=SOURCE, **config)
        run.journal.append(completed)
        [[rollout]] = [rollouts for _, rollouts in run.groups()]
        reader = TokenReader(run.journal.path.parent)
        tokens = rollout.tokens and reader.read(rollout.tokens, rollout.instance_id, rollout.sample_id)
        reader.close()
    return rollout, tokens, server


def test_what_is_learnt_is_what_was_sampled(tmp_path):
    answer = ScriptedAnswer(content="<answer>0</answer>", reasoning="hm")
    rollout, tokens, server = recorded(tmp_path, answer)
    (sequence,) = join_calls(tokens.calls)
    trained = bytes(label for label in sequence.labels if label != IGNORED)
    assert bytes(sequence.input_ids) == render_prompt(server.bodies[0]["messages"]) + trained
    assert trained == encode_message({"content": rollout.completion, "reasoning_content": rollout.reasoning_content})
    assert tokens.calls[0].source == SOURCE


def test_a_cut_off_answer_has_no_end_to_learn(tmp_path):
    _, tokens, _ = recorded(tmp_path, ScriptedAnswer(content="<answer>0", finish_reason="length"))
    assert bytes(list(tokens.calls[0].ids)) == b"<answer>0"


def test_a_failed_rollout_has_no_tokens(tmp_path):
    with opened(tmp_path, rows=1, num_rollout=1) as run, ScriptedServer(Script(always="400")) as server:
        (completed,) = make(run, server.base_url, token_source=SOURCE)
    assert completed.tokens == ()
