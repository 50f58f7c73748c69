"""Each job from the requests of its server to the tokens that training uses.

Everything that the model wrote is trained on with one end-of-turn token, after the prompt that the server received:
rendered from the journal's text, and with recorded tokens as exactly these.
"""

import orjson
import pytest

from rollmill.agents.record import make_record
from rollmill.corpus.corpus import read_corpus
from rollmill.exports.sft import export_sft
from rollmill.exports.token_sequences import IGNORED
from rollmill.files.rows import dump_line
from rollmill.generation.engine import CompletedRollout
from rollmill.generation.sampling import Sampling
from rollmill.generation.tally import RolloutOutcome
from rollmill.inference.sampled_tokens import TokenSource, known_tokens
from rollmill.inference.script import render_prompt
from rollmill.inference.scripted import Conversation, Script, ScriptedAnswer, ScriptedServer
from rollmill.jobs.optimal_sampling.outcome import sample_row
from rollmill.jobs.training.masks import Masks
from rollmill.jobs.training.prepared import TRAIN, prepare_rows, rows_file
from rollmill.records import Failure, Problem, Rollout
from tests.agents.scripted_agents import (
    PROBLEM,
    SUBMIT,
    ShellSandbox,
    bash,
    call,
    play_on,
    text_settings,
    tool_settings,
)
from tests.chat_template import TEMPLATE
from tests.generation.run_factory import opened
from tests.generation.test_chat import make
from tests.jobs.episodes.test_thinking import episode, rows
from tests.jobs.optimal_sampling.runs import parameters
from tests.jobs.training.test_prepared import learnt_rows
from tests.jobs.training.tiny_models import make_byte_tokenizer, make_tokenizer

HASH = "0123456789abcdef"
SOURCE = TokenSource(HASH, "processed_logprobs")
END = "<|im_end|>"
TOKENIZER = make_tokenizer(TEMPLATE, END)
BYTES = make_byte_tokenizer(TEMPLATE)
LOOK_UP = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
ODD = {"name": "bash", "arguments": '{"command"'}


def answering(*answers):
    return ScriptedServer(Script(conversations=[Conversation(answers=[ScriptedAnswer(**each) for each in answers])]))


def looked_up(text):
    return {"id": "a", "type": "function", "function": {"name": "look_up", "arguments": text}}


def trained_runs(folder, path, tokenizer=TOKENIZER):
    """Return the trained runs of tokens of a file of training rows, each with its context."""
    (folder / "prepared").mkdir()
    prepared = prepare_rows(
        folder / "prepared", Masks(tokenizer, "m"), [str(path)], [], max_length=100_000, tokenizer_hash=HASH,
        allow_no_end=True,
    )  # fmt: skip
    runs = [run for text in learnt_rows(rows_file(folder / "prepared", TRAIN)) for run in runs_of(text)]
    return runs, prepared


def runs_of(text):
    """Yield the context and the tokens of each trained run, as ids."""
    begin = None
    for at, label in enumerate([*text.labels, IGNORED]):
        if label != IGNORED and begin is None:
            begin = at
        elif label == IGNORED and begin is not None:
            yield text.input_ids[:begin], text.input_ids[begin:at]
            begin = None


def as_text(runs):
    return [(TOKENIZER.decode(context), TOKENIZER.decode(ids)) for context, ids in runs]


def as_bytes(runs):
    return [(bytes(context), bytes(ids)) for context, ids in runs]


def shown(body):
    """The prompt that a server makes of a request: thoughts by its name, arguments opened."""
    messages = []
    for message in body["messages"]:
        thoughts = message.get("reasoning") or message.get("reasoning_content")
        calls = [
            each | {"function": each["function"] | {"arguments": orjson.loads(each["function"]["arguments"])}}
            for each in message.get("tool_calls") or ()
        ]
        message = (
            message | ({"reasoning_content": thoughts} if thoughts else {}) | ({"tool_calls": calls} if calls else {})
        )
        messages.append(message)
    options = body.get("chat_template_kwargs") or {}
    return TOKENIZER.apply_chat_template(
        messages, tools=body.get("tools"), tokenize=False, add_generation_prompt=True, **options
    )


def export(folder, run, **options):
    """The training file of a run's journal."""
    corpus = read_corpus([str(run.journal.path)])
    path = folder / "sft.jsonl"
    export_sft(path, corpus, corpus.table, **options)
    return path


SAMPLED = {
    "thinking": (
        {"content": "<answer>0</answer>", "reasoning": "hm"},
        "<think>\nhm\n</think>\n\n<answer>0</answer>" + END,
    ),
    "a call": (
        {"content": None, "tool_calls": [looked_up('{"x": 1}')], "reasoning": "hm", "finish_reason": "tool_calls"},
        '<think>\nhm\n</think>\n\n<tool_call>\n{"name": "look_up", "arguments": {"x": 1}}\n</tool_call>' + END,
    ),
    "cut off": (
        {"content": "<answer>0", "reasoning": "hm", "finish_reason": "length"},
        "<think>\nhm\n</think>\n\n<answer>0",
    ),
    "stop text": ({"content": "<answer>0</answer>", "stop_reason": "END"}, "<answer>0</answer>"),
    "end token": ({"content": "<answer>0</answer>", "stop_reason": 7}, "<answer>0</answer>" + END),
}
SAMPLING = Sampling(
    chat_template_kwargs={"enable_thinking": True}, extra_body={"tools": [LOOK_UP]}, stop=("STOP", "END")
)


@pytest.mark.parametrize(("answer", "text"), SAMPLED.values(), ids=SAMPLED)
@pytest.mark.parametrize("form", ["messages", "prompt_completion"])
def test_rejection_sampling(tmp_path, answer, text, form):
    with opened(tmp_path / "run", rows=1, num_rollout=1) as run, answering(answer) as server:
        (built,) = make(run, server.base_url, sampling=SAMPLING)
        run.journal.append(built)
    path = export(tmp_path, run, keep_truncated=True, format=form)
    runs, _ = trained_runs(tmp_path, path)
    assert as_text(runs) == [(shown(server.bodies[0]), text)]


@pytest.mark.parametrize("answer", [answer for answer, _ in SAMPLED.values()], ids=SAMPLED)
def test_rejection_sampling_with_its_tokens(tmp_path, answer):
    with opened(tmp_path / "run", rows=1, num_rollout=1) as run, answering(answer) as server:
        (built,) = make(run, server.base_url, sampling=SAMPLING, token_source=SOURCE)
        run.journal.append(built)
    runs, prepared = trained_runs(tmp_path, export(tmp_path, run, keep_truncated=True), BYTES)
    prompt, ids = render_prompt(server.bodies[0]["messages"]), built.tokens[0].ids
    assert (as_bytes(runs), prepared.recorded_rows) == ([(prompt, bytes(list(ids)))], 1)


TURNS = [
    call("echo one", reasoning="I look first.", content=None),
    call(ODD, reasoning="Now this."),
    call("true", content="And", reasoning="that.", finish_reason="max_tokens"),
    call("echo two", reasoning="Stopped.", stop_reason="END"),
    call(SUBMIT, content="done"),
]


def called(command, content="", thoughts=None):
    head = f"<think>\n{thoughts}\n</think>\n\n" if thoughts else ""
    arguments = orjson.dumps({"command": command}).decode().replace('":"', '": "')
    return f'{head}{content}<tool_call>\n{{"name": "bash", "arguments": {arguments}}}\n</tool_call>'


WRITTEN = {
    0: called("echo one", thoughts="I look first.") + END,
    3: called("echo two", thoughts="Stopped."),
    4: called(SUBMIT, "done") + END,
}
"""What is learnt of which turns: what is no JSON cannot be written as it was, and what was cut off is not learnt."""


def attempt(folder, settings, turns, **config):
    """A run with an agent's attempt in its journal, and the requests."""
    with opened(folder / "run", rows=1, num_rollout=1) as run, answering(*turns) as server:
        played = play_on(server, ShellSandbox(folder), settings, **config)
        assert (played.exit_status, played.error) == ("Submitted", None)
        record = make_record(
            PROBLEM, played.__class__(**played.__dict__ | {"error": Failure(type="t", message="not graded")}), None,
            sample_id=0, seed=1, metadata={"reasoning_dropped": True} if settings.drop_reasoning else {},
        )  # fmt: skip
        row = record.model_dump(mode="json") | {"error": None}
        outcome = RolloutOutcome.of_row(row)
        run.journal.append(CompletedRollout("p", 0, dump_line(row), outcome, None, known_tokens(played.tokens)))
        return run, server.bodies, played


AGENTS = {
    "all sent": tool_settings(request={"stop": ["END"]}),
    "thoughts dropped": tool_settings(request={"stop": ["END"]}, drop_reasoning=True),
    "template arguments": tool_settings(
        request={"stop": ["END"], "chat_template_kwargs": {"enable_thinking": True}}, drop_reasoning=True
    ),
}


@pytest.mark.parametrize("settings", AGENTS.values(), ids=AGENTS)
@pytest.mark.parametrize("form", ["messages", "prompt_completion"])
@pytest.mark.parametrize("arguments", ["object", "text"])
def test_agents(tmp_path, settings, form, arguments):
    run, bodies, _ = attempt(tmp_path, settings, TURNS)
    runs, _ = trained_runs(tmp_path, export(tmp_path, run, format=form, arguments=arguments))
    assert as_text(runs) == [(shown(bodies[at]), text) for at, text in WRITTEN.items()]


def test_agents_in_text_mode(tmp_path):
    turns = [{"content": bash("echo one"), "reasoning": "hm"}, {"content": bash(SUBMIT)}]
    run, bodies, _ = attempt(tmp_path, text_settings(drop_reasoning=True), turns)
    runs, _ = trained_runs(tmp_path, export(tmp_path, run))
    texts = [f"<think>\nhm\n</think>\n\n{bash('echo one')}{END}", f"{bash(SUBMIT)}{END}"]
    assert as_text(runs) == list(zip(map(shown, bodies), texts, strict=True))


@pytest.mark.parametrize("settings", AGENTS.values(), ids=AGENTS)
def test_agents_with_their_tokens(tmp_path, settings):
    run, bodies, played = attempt(tmp_path, settings, TURNS, token_source=SOURCE)
    runs, prepared = trained_runs(tmp_path, export(tmp_path, run), BYTES)
    learnt_turns = [0, 1, 3, 4]  # by its ids a call that is no JSON is known, too
    assert prepared.recorded_rows == 1
    assert as_bytes(runs) == [
        (render_prompt(bodies[at]["messages"]), bytes(list(played.tokens[at].ids))) for at in learnt_turns
    ]


@pytest.mark.parametrize("drop_reasoning", [False, True])
def test_episodes(tmp_path, drop_reasoning):
    rollout, bodies = episode(tmp_path, drop_reasoning=drop_reasoning)
    path = tmp_path / "sft.jsonl"
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows(rollout)))
    runs, _ = trained_runs(tmp_path, path)
    first, second = f"<think>\nfirst thoughts\n</think>\n\n1{END}", "<think>\nsecond thoughts\n</think>\n\n2"
    assert as_text(runs) == list(zip(map(shown, bodies), [first, first, second, second], strict=True))


@pytest.mark.parametrize(("finish_reason", "text"), [("stop", f"five{END}"), ("length", "five")])
def test_q_star(tmp_path, finish_reason, text):
    question = [{"role": "user", "content": "2+3"}]
    rollout = Rollout(
        instance_id="row-0", sample_id=0, seed=0, messages=question, completion="five", reward=None, success=None,
        verdict=None, error=None, finish_reason=finish_reason,
    )  # fmt: skip
    row = sample_row(Problem(instance_id="row-0", prompt=question), rollout, {}, parameters(tmp_path))
    path = tmp_path / "out.jsonl"
    path.write_bytes(orjson.dumps(row) + b"\n")
    runs, _ = trained_runs(tmp_path, path)
    assert as_text(runs) == [(shown({"messages": question}), text)]
