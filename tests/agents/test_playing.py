import threading

import pytest

from rollmill.agents.model import turn_seed
from rollmill.agents.playing import CANCELLED, FAILED
from rollmill.errors import InputError, ServingError
from rollmill.inference.scripted import Conversation, Script, ScriptedAnswer, ScriptedServer
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


def served(*answers, **script):
    scripted = [entry if isinstance(entry, str) else ScriptedAnswer(**entry) for entry in answers]
    return ScriptedServer(Script(conversations=[Conversation(answers=scripted)], **script))


@pytest.fixture
def sandbox(tmp_path):
    return ShellSandbox(tmp_path)


@pytest.fixture
def playing(sandbox):
    """Run a rollout with these answers; return it and the server."""

    def playing(*answers, settings=None, script=None, **rest):
        with served(*answers, **(script or {})) as server:
            return play_on(server, sandbox, settings or text_settings(), **rest), server

    return playing


def roles(played):
    return [message["role"] for message in played.messages]


def test_text_mode_to_its_submission(playing, sandbox):
    played, server = playing(bash("echo 1 > a.py; echo hi"), bash(f"{SUBMIT}; echo the end"))
    assert (sandbox.folder / "a.py").read_text() == "1\n"
    assert (played.exit_status, played.submission, played.error) == ("Submitted", "the end\n", None)
    assert roles(played) == ["system", "user", "assistant", "user", "assistant"]
    assert "Please solve this issue: make it fast" in played.messages[1]["content"]
    assert played.messages[2] == {
        "role": "assistant",
        "content": bash("echo 1 > a.py; echo hi"),
        "finish_reason": "stop",
    }
    assert played.messages[3] == {
        "role": "user",
        "content": "<returncode>0</returncode>\n<output>\nhi\n</output>",
        "extra": {"returncode": 0},
    }
    assert (played.model_calls, played.steps, played.finish_reason) == (2, 2, "stop")
    assert played.usage.prompt_tokens == 32
    assert server.seeds == {turn_seed(7, 1): 1, turn_seed(7, 2): 1}
    assert [{key for message in body["messages"] for key in message} for body in server.bodies] == 2 * [
        {"role", "content"}
    ]


def test_tool_mode_to_its_submission(playing):
    played, server = playing(
        call("echo one", "echo two; exit 4"), call("echo three", SUBMIT, "echo never"), settings=tool_settings()
    )
    assert (played.exit_status, played.submission) == ("Submitted", "")
    assert roles(played) == ["system", "user", "assistant", "tool", "tool", "assistant", "tool"]
    assert played.messages[4] == {
        "role": "tool",
        "tool_call_id": "id1",
        "content": '{\n  "returncode": 4,\n  "output": "two\\n"\n}',
        "extra": {"returncode": 4},
    }
    assert [entry["function"]["arguments"] for entry in played.messages[5]["tool_calls"]] == [
        '{"command": "echo three"}',
        f'{{"command": "{SUBMIT}"}}',
        '{"command": "echo never"}',
    ]
    assert "three" in played.messages[6]["content"]
    assert server.bodies[1]["messages"][2]["tool_calls"] == played.messages[2]["tool_calls"]


def test_agent_continues_after_malformed_turns(playing):
    played, server = playing("I think.", bash("ls") + bash("ls"), bash("false"), "again", bash(SUBMIT))
    assert played.exit_status == "Submitted"
    assert roles(played)[2:] == ["assistant", "user"] * 4 + ["assistant"]
    assert [entry["content"] for entry in played.messages[2:10:2]] == [
        "I think.", bash("ls") + bash("ls"), bash("false"), "again",
    ]  # fmt: skip
    marks = [entry.get("extra") for entry in played.messages[3:10:2]]
    assert marks == [{"interrupt_type": "FormatError"}] * 2 + [{"returncode": 1}, {"interrupt_type": "FormatError"}]
    assert len(server.bodies[-1]["messages"]) == 10


def test_conversation_contains_malformed_tool_calls(playing):
    odd = call({"name": "bash", "arguments": '{"command"'}, {"name": "open", "arguments": "{}"}, ids=False)
    played, server = playing(odd, call("true"), call(SUBMIT), settings=tool_settings())
    assert played.exit_status == "Submitted"
    assert roles(played)[2:] == ["assistant", "tool", "tool", "assistant", "tool", "assistant"]
    first = played.messages[2]["tool_calls"]
    assert [entry["function"]["arguments"] for entry in first] == ['{"command"', "{}"]
    assert [entry["tool_call_id"] for entry in played.messages[3:5]] == [entry["id"] for entry in first]
    sent = server.bodies[-1]["messages"][2]["tool_calls"][0]["function"]["arguments"]
    assert sent == '{"malformed_arguments":"{\\"command\\""}'


@pytest.mark.parametrize("settings", [text_settings(), tool_settings()])
def test_consecutive_format_errors_end_the_agent(playing, settings):
    played, _ = playing("no", settings=settings)
    assert (played.exit_status, played.error, played.model_calls) == ("RepeatedFormatError", None, 3)
    assert roles(played)[2:] == ["assistant", "user"] * 3


def test_number_of_consecutive_format_errors_is_configurable(playing):
    played, _ = playing("no", settings=text_settings(max_consecutive_format_errors=1))
    assert (played.exit_status, played.model_calls) == ("RepeatedFormatError", 1)
    played, _ = playing("no", settings=text_settings(max_consecutive_format_errors=0, step_limit=6))
    assert (played.exit_status, played.model_calls) == ("LimitsExceeded", 6)


def test_step_limit(playing):
    played, _ = playing(bash("true"), settings=text_settings(step_limit=2))
    assert (played.exit_status, played.model_calls, played.error) == ("LimitsExceeded", 2, None)
    assert roles(played)[2:] == ["assistant", "user"] * 2


def test_wall_time_limit(playing):
    played, _ = playing(bash("sleep 30"), settings=text_settings(wall_time_limit_s=1))
    assert (played.exit_status, played.error) == ("TimeExceeded", None)
    assert played.seconds >= 1
    assert "timed out after" in played.messages[-1]["content"]
    assert played.messages[-1]["extra"]["returncode"] == -1


def test_context_overflow_is_the_exit_status(playing):
    script = {"context_tokens": 3000}
    played, server = playing(bash("seq 2000"), settings=text_settings(), script=script)
    assert (played.exit_status, played.error) == ("ContextLengthExceeded", None)
    assert played.model_calls == server.requests == played.steps > 1
    assert roles(played)[-2:] == ["assistant", "user"]


def test_too_long_first_prompt_is_an_error(playing):
    played, _ = playing(bash("true"), script={"context_tokens": 10})
    assert (played.exit_status, played.error.type) == (FAILED, "http_400")
    assert "maximum context length is 10 tokens" in played.error.message
    assert roles(played) == ["system", "user"]


def test_permanent_server_failure_is_an_error(playing):
    played, _ = playing(bash("true"), script={"faults": ["429"], "always": "400"}, max_retries=1)
    assert (played.exit_status, played.error.type, played.model_calls) == (FAILED, "http_400", 2)
    assert "scripted 400" in played.error.message


def test_transient_server_failure_is_retried(playing):
    played, server = playing(bash(SUBMIT), script={"faults": ["garbage"]}, max_retries=1)
    assert (played.exit_status, played.model_calls, server.requests) == ("Submitted", 2, 2)
    assert set(server.seeds.values()) == {2}


@pytest.mark.parametrize(("dies_at", "settings", "left"), [
    (1, text_settings(), []),
    (2, text_settings(), ["system", "user", "assistant"]),
    (3, tool_settings(), ["system", "user", "assistant", "tool"]),
])  # fmt: skip
def test_dead_sandbox_is_an_error(tmp_path, dies_at, settings, left):
    answer = bash("echo 1") if settings.mode == "text" else call("echo 1", "echo 2")
    with served(answer) as server:
        played = play_on(server, ShellSandbox(tmp_path, dies_at=dies_at), settings)
    assert (played.exit_status, played.submission) == (FAILED, "")
    assert played.error.model_dump() == {"type": "sandbox_gone", "message": "the sandbox is gone"}
    assert roles(played) == left


def test_working_directory_of_commands(playing, sandbox):
    for name in ("of_problem", "of_file"):
        (sandbox.folder / name).mkdir()
    settings = text_settings(cwd="of_file")
    answers = (bash(f"{SUBMIT}; basename $PWD"),)
    assert playing(*answers, settings=settings)[0].submission == "of_file\n"
    problem = PROBLEM.model_copy(update={"workdir": "of_problem"})
    assert playing(*answers, settings=settings, problem=problem)[0].submission == "of_problem\n"


def test_templates_can_use_the_problems_fields(playing):
    settings = text_settings(instance_template="{{task}} in {{problem.path_in_repo}}, {{step_limit}}, {{cwd}}.")
    played, _ = playing(bash(SUBMIT), settings=settings)
    assert played.messages[1]["content"] == "make it fast in a.py, 250, ."


def test_undefined_template_variable_is_an_input_error(playing):
    with pytest.raises(InputError, match="cannot be filled in: 'secret' is undefined"):
        playing(bash(SUBMIT), settings=text_settings(instance_template="{{secret}}"))


def test_stop_event_cancels_the_attempt(sandbox):
    stop = threading.Event()
    with served(bash("sleep 0.5"), latency_s=0.05) as server:
        threading.Timer(0.7, stop.set).start()
        played = play_on(server, sandbox, text_settings(), stop=stop)
    assert (played.exit_status, played.error.type) == (FAILED, CANCELLED)
    assert 1 <= played.model_calls <= 3


def test_stop_before_the_first_request_cancels_the_attempt(sandbox):
    stop = threading.Event()
    stop.set()
    with served(bash("true")) as server:
        played = play_on(server, sandbox, text_settings(), stop=stop)
        assert server.requests == 0
    assert (played.error.type, roles(played)) == (CANCELLED, ["system", "user"])


def test_no_server_left_stops_the_run(sandbox):
    class ClosedClient:
        def complete(self, body):
            raise ServingError("no server left")

    from rollmill.agents.playing import play

    with pytest.raises(ServingError, match="no server left"):
        play(PROBLEM, sandbox=sandbox, client=ClosedClient(), model="m", settings=text_settings(), seed=0)


def test_agents_run_concurrently(tmp_path):
    answers = [bash("echo $RANDOM > mine; cat mine"), bash(f"{SUBMIT}; cat mine; pwd")]
    settings = text_settings()
    done = {}
    with served(*answers, latency_s=0.02) as server:

        def entry(number):
            folder = tmp_path / str(number)
            folder.mkdir()
            done[number] = play_on(server, ShellSandbox(folder), settings, seed=number)

        threads = [threading.Thread(target=entry, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(server.seeds) == 12
    for number, played in done.items():
        mine = (tmp_path / str(number) / "mine").read_text()
        assert played.submission == f"{mine}{tmp_path / str(number)}\n"
