"""Servers that send too much, something else, or redirects: each is a failure outside the model."""

import asyncio
import functools
import gzip
import json
import random
import resource
import struct
import time
import zlib
from contextlib import suppress

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from rollmill.environments.search.remote import RemoteSearcher
from rollmill.errors import ServingError
from rollmill.inference import answer_body
from rollmill.inference.answer_body import AnswerBody, AnswerError, check_redirect, message_text, same_host_redirect
from rollmill.inference.backoff import parse_retry_after
from rollmill.inference.client import ChatClient, ClientConfig, RequestFailedError
from rollmill.inference.endpoints import Endpoint, EndpointPool
from rollmill.inference.http_service import CallFailedError, ServiceConnection
from rollmill.inference.probe import NotAnsweringError, check_model, healthy, served_models
from rollmill.sandboxes.remote import RemoteHost
from rollmill.sandboxes.sandbox import SandboxError, SandboxSpec
from tests.inference.byte_server import ByteServer, answering

GOOD = orjson.dumps({"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]})
KEY = SecretStr("sk-only-for-the-right-one")


def complete(url, **config):
    """One completion, not sent again unless the test says so."""

    async def ask():
        pool = EndpointPool([Endpoint(url)])
        async with ChatClient(pool, ClientConfig(api_key=KEY, **{"max_retries": 0, **config})) as client:
            return await client.complete(b'{"model": "m", "messages": [], "seed": 7}')

    return asyncio.run(ask())


def failing(url, **config):
    with pytest.raises(RequestFailedError) as raised:
        complete(url, **config)
    return raised.value


def call(url, timeout_s=10.0):
    connection = ServiceConnection(url.removesuffix("/v1"), KEY)
    try:
        return connection.post("/execute", {"command": "id"}, timeout_s=timeout_s)
    finally:
        connection.close()


def gzipped_zeros(gigabytes: int) -> bytes:
    zeros, count = bytes(1 << 24), 64 * gigabytes
    packing = zlib.compressobj(9, wbits=-15)
    piece = packing.compress(zeros) + packing.flush(zlib.Z_FULL_FLUSH)  # the same wherever it stands
    checksum = functools.reduce(lambda checksum, _: zlib.crc32(zeros, checksum), range(count), 0)
    return gzip.compress(b"")[:10] + piece * count + b"\3\0" + struct.pack("<II", checksum, count << 24 & 0xFFFFFFFF)


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """A gigabyte in one megabyte."""
    return gzipped_zeros(1)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.parametrize(
    ("status", "kind"),
    [("200 OK", "answer_too_large"), ("400 Bad Request", "http_400"), ("500 Internal Server Error", "http_500")],
)
def test_a_bomb_is_not_unpacked(bomb, status, kind):
    before = peak_mb()
    with ByteServer(answering(bomb, "Content-Encoding: gzip", status=status)) as server:
        failure = failing(server.base_url)
        assert failure.type == kind
        assert "more than 67,108,864 bytes" in failure.message
        with pytest.raises(CallFailedError, match="more than 67,108,864 bytes") as raised:
            call(server.base_url)
        assert raised.value.type == kind
        with pytest.raises(NotAnsweringError):
            served_models(server.base_url)
    assert peak_mb() - before < 600


def test_a_bomb_is_not_asked_for_again(bomb):
    with ByteServer(answering(bomb, "Content-Encoding: gzip")) as server:
        assert failing(server.base_url, max_retries=5).calls == 1
        assert len(server.requests) == 1


def test_an_error_page_that_cannot_be_read_may_pass():
    """A proxy's, say, while its server starts."""
    answers_ = iter([answering(b"\x0b", "Content-Encoding: br", status="502 Bad Gateway"), answering(GOOD)])
    with ByteServer(lambda connection, head: next(answers_)(connection, head)) as server:
        assert complete(server.base_url, max_retries=1).text == "yes"


@pytest.mark.parametrize("headers", [(), ("Content-Encoding: identity",), ("Content-Encoding: GZIP",)])
def test_answers_that_are_packed_or_not_are_read(headers):
    content = gzip.compress(GOOD) if "GZIP" in "".join(headers) else GOOD
    with ByteServer(answering(content, *headers)) as server:
        assert complete(server.base_url).text == "yes"
        assert b"accept-encoding: identity" in server.requests[0][0].lower()
        assert call(server.base_url)["choices"]


@pytest.mark.parametrize(
    "content", [zlib.compress(GOOD), zlib.compressobj(wbits=-15).compress(b"") + zlib.compress(GOOD)[2:-4]]
)
def test_both_forms_of_deflate_are_read(content):
    with ByteServer(answering(content, "Content-Encoding: deflate")) as server:
        assert complete(server.base_url).text == "yes"


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "\x1b]0;x"])
def test_other_packings_are_refused_by_name(encoding):
    with ByteServer(answering(GOOD, f"Content-Encoding: {encoding}")) as server:
        failure = failing(server.base_url)
    assert failure.type in {"content_encoding", "connection"}
    assert "\x1b" not in failure.message


def endless(head: bytes, piece: bytes):
    def answer(connection, _):
        connection.sendall(head)
        while True:
            connection.sendall(piece)

    return answer


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536),
        (b"HTTP/1.1 500 Oh\r\n\r\n", b"x" * 65536),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * 65536 + b"\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", b"data: {}\n\n" * 5000),
    ],
    ids=["to the end", "an error", "chunked", "announced", "announced absurdly", "a stream"],
)
def test_an_endless_body_ends(head, piece):
    before = peak_mb()
    with ByteServer(endless(head, piece)) as server:
        assert failing(server.base_url).type in {"answer_too_large", "connection", "http_500"}
        with pytest.raises(CallFailedError):
            call(server.base_url)
        with pytest.raises(NotAnsweringError):
            served_models(server.base_url)
    assert peak_mb() - before < 500


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-More: " + b"x" * 60 + b"\r\n"),
        (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x" * 4096),
        (b"HTTP/1.1 200 ", b"x" * 4096),
        (b"", b"x" * 4096),
    ],
    ids=["many headers", "one long header", "a long reason", "no HTTP"],
)
def test_endless_heads_end(head, piece):
    before = peak_mb()
    with ByteServer(endless(head, piece)) as server:
        assert failing(server.base_url).type == "connection"
        with pytest.raises(CallFailedError) as raised:
            call(server.base_url)
        assert raised.value.type == "connection"
        with pytest.raises(NotAnsweringError):
            served_models(server.base_url)
        assert not healthy(server.base_url)
    assert peak_mb() - before < 300


def dripping(head: bytes, piece: bytes, rest: bytes):
    """What sends pieces for longer than it is waited for, each in time, and then is a good answer."""

    def answer(connection, _):
        connection.sendall(head)
        for _ in range(40):
            connection.sendall(piece)
            time.sleep(0.03)
        connection.sendall(rest)

    return answer


@pytest.mark.parametrize(
    ("head", "piece", "rest"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"x", b"\r\nContent-Length: %d\r\n\r\n"),
        (b"HTTP/1.1 200 ", b"x", b"\r\nContent-Length: %d\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\n", b"X: x\r\n", b"Content-Length: %d\r\n\r\n"),
    ],
    ids=["continue", "a header", "the reason", "headers"],
)
def test_dripped_header_hits_the_request_timeout(head, piece, rest):
    with ByteServer(dripping(head, piece, rest % len(GOOD) + GOOD)) as server:
        assert failing(server.base_url, request_timeout_s=0.4).type == "timeout"
        with pytest.raises(CallFailedError) as raised:
            call(server.base_url, timeout_s=0.4)
        assert raised.value.type == "timeout"
        with pytest.raises(NotAnsweringError, match="timed out"):
            served_models(server.base_url, timeout_s=0.4)
        assert not healthy(server.base_url, timeout_s=0.4)


def test_a_dripped_body_is_waited_for_no_longer_either():
    for head in (b"Content-Length: %d\r\n\r\n" % (40 + len(GOOD)), b"\r\n"):
        with ByteServer(dripping(b"HTTP/1.1 200 OK\r\n" + head, b" ", GOOD)) as server:
            with pytest.raises(CallFailedError) as raised:
                call(server.base_url, timeout_s=0.4)
            assert raised.value.type == "timeout"
            with pytest.raises(NotAnsweringError, match="timed out"):
                served_models(server.base_url, timeout_s=0.4)


@pytest.mark.parametrize("code", [300, 301, 302, 303, 305, 307, 308])
def test_a_redirect_is_not_followed_and_names_its_address(code):
    with ByteServer(answering(GOOD)) as elsewhere:
        aim = f"{elsewhere.base_url}/chat/completions"
        with ByteServer(answering(b"", f"Location: {aim}", status=f"{code} Moved")) as server:
            failure = failing(server.base_url)
            assert failure.type == "redirect"
            assert failure.calls == 1
            assert aim in failure.message
            assert f"answers {code}" in failure.message
            with pytest.raises(CallFailedError, match=aim) as raised:
                call(server.base_url)
            assert not raised.value.passing
            with pytest.raises(NotAnsweringError, match=aim):
                served_models(server.base_url, api_key=KEY.get_secret_value())
            assert not healthy(server.base_url)
        assert elsewhere.requests == []


@pytest.mark.parametrize("code", [307, 308])
@pytest.mark.parametrize("aim", ["/other/v1/chat/completions", "//{host}/other/v1/chat/completions"])
def test_a_redirect_that_keeps_the_request_is_followed_on_the_same_host(code, aim):
    def lead(connection, head):
        if b"/other/" in head:
            return answering(GOOD)(connection, head)
        host = server.base_url.split("/")[2]
        return answering(b"", f"Location: {aim.format(host=host)}", "Connection: close", status=f"{code} Moved")(
            connection, head
        )

    with ByteServer(lead) as server:
        assert complete(server.base_url).text == "yes"
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    "aim", ["http://localhost:{port}", "http://127.0.0.1:1", "http://user@127.0.0.1:{port}", "http://[x"]
)
def test_no_redirect_to_another_host_is_followed(aim):
    with ByteServer(lambda connection, head: None) as server:
        address = server.base_url
    port = address.split(":")[2].partition("/")[0]
    assert (
        same_host_redirect(f"{address}/chat/completions", 307, f"{aim.format(port=port)}/v1/chat/completions") is None
    )


def test_a_redirect_to_no_address_is_a_failure():
    with pytest.raises(AnswerError, match=r"a redirect to http://\[x/v1"):
        check_redirect("http://h/v1/x", 307, "http://[x/v1")


def test_a_redirect_may_lead_from_http_to_https_and_never_back():
    assert same_host_redirect("http://h/v1/x", 308, "https://h/v1/x") == "https://h/v1/x"
    assert same_host_redirect("https://h/v1/x", 308, "http://h/v1/x") is None
    assert same_host_redirect("http://h:8000/v1/x", 308, "https://h/v1/x") is None


def test_redirects_in_a_circle_end():
    with ByteServer(
        answering(b"", "Location: /v1/chat/completions/", "Connection: close", status="307 Moved")
    ) as server:
        failure = failing(server.base_url)
        assert (failure.type, len(server.requests)) == ("redirect", 4)


def test_a_redirect_that_is_not_followed_names_the_address_to_use():
    with ByteServer(answering(b"", "Location: /new/v1/chat/completions", status="301 Moved")) as server:
        host = server.base_url.removesuffix("/v1")
        assert failing(server.base_url).message.endswith(f"give the right address: {host}/new/v1")


def test_where_a_redirect_leads_is_shown_escaped():
    with ByteServer(answering(b"", "Location: http://a/\x1b[2J\u202e", status="302 Found")) as server:
        for message in (failing(server.base_url).message, _error_text(lambda: call(server.base_url))):
            assert message.isprintable()


def _error_text(act):
    with pytest.raises(Exception) as raised:  # noqa: PT011  # the message matters, not the class
        act()
    return str(raised.value)


def test_a_redirect_without_an_address_is_another_failure():
    with ByteServer(answering(b"", status="304 Not Modified")) as server:
        assert failing(server.base_url).type == "http_304"


def test_sandboxes_and_searches_fail_outside_when_they_are_redirected():
    with ByteServer(answering(b"{}", "Location: http://192.0.2.1/start", status="308 Moved")) as server:
        host = RemoteHost(server.address, max_retries=3)
        with pytest.raises(SandboxError, match=r"192\.0\.2\.1/start") as raised:
            host.start(SandboxSpec(image="i"))
        assert raised.value.type == "redirect"
        host.close()
        searcher = RemoteSearcher(server.address, max_retries=3)
        with pytest.raises(ServingError, match=r"192\.0\.2\.1/start"):
            searcher.search("q", 3)
        searcher.close()
        assert len(server.requests) == 2


NESTED = b'{"choices": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


def chat_answer(content: str, **more) -> bytes:
    return orjson.dumps({"choices": [{"message": {"content": content}, "finish_reason": "stop"}], **more})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff\xfe{}",
        b"NaN",
        NESTED,
        NESTED.replace(b'"choices"', b'"\\ud800"'),
        b'{"choices": [{"message": {"content": 7}}]}',
        b'{"choices": [{"message": {"content": NaN}}]}',
        b'{"choices": {"0": {}}}',
        chat_answer("a")
        .replace(b'"a"', b'"a\\ud800"')
        .replace(b"}]}", b'}], "usage": {"prompt_tokens": 1' + b"0" * 5000 + b"}}"),
        chat_answer("a")[:-1],
        b"<html>no model here</html>",
        b'data: {"choices": []}\n\ndata: [DONE]\n\n',
    ],
)
def test_invalid_completion_is_a_failure(content):
    with ByteServer(answering(content)) as server:
        failure = failing(server.base_url)
    assert failure.type == "malformed_response"
    assert failure.message.isprintable()


def test_of_a_key_that_stands_twice_the_last_counts():
    content = b'{"choices": 7, "choices": [{"message": {"content": "a", "content": "b"}}]}'
    with ByteServer(answering(content)) as server:
        assert complete(server.base_url).text == "b"


@pytest.mark.parametrize("content", [NESTED, b"\xff", b"[]", b"NaN", b'{"a": 1e999}', b'{"a": "\\ud800"}', b""])
def test_what_is_no_object_is_a_failure_of_a_service(content):
    with ByteServer(answering(content)) as server, pytest.raises(CallFailedError) as raised:
        call(server.base_url)
    assert raised.value.type == "malformed_answer"


@pytest.mark.parametrize(
    "content",
    [
        NESTED,
        b"\xff",
        b"[]",
        b"{}",
        b'{"data": 7}',
        b'{"data": [7]}',
        b'{"data": [{}]}',
        b'{"data": {"id": 1}}',
        b"NaN",
    ],
)
def test_invalid_model_list_is_not_an_openai_server(content):
    with ByteServer(answering(content)) as server, pytest.raises(NotAnsweringError, match="not an OpenAI-compatible"):
        served_models(server.base_url)


def test_model_names_are_escaped_and_limited_in_errors():
    names = ["\x1b[2Jm\u202e", "x" * 10_000, *(f"m{number}" for number in range(5000))]
    listing = orjson.dumps({"data": [{"id": name} for name in names]})
    with ByteServer(answering(listing)) as server, pytest.raises(ServingError) as raised:
        check_model(server.base_url, ("mine",))
    assert "\\x1b[2Jm\\u202e" in str(raised.value)
    assert "4,982 more" in str(raised.value)
    assert len(str(raised.value)) < 3000


@pytest.mark.parametrize("status", ["400 Bad", "503 Later"])
def test_server_messages_are_shown_escaped(status):
    content = orjson.dumps({"error": {"message": "\x1b]0;owned\x07 \u202e no"}, "detail": "\x1b]0;owned\x07"})
    with ByteServer(answering(content, status=status)) as server:
        assert "\\x1b]0;owned" in failing(server.base_url).message
        assert "\\x1b]0;owned" in _error_text(lambda: call(server.base_url))


def test_a_wait_that_a_server_asks_for_is_bounded():
    for value in ("1e308", "inf", "nan", "-5", "99999999999", "Fri, 31 Dec 9999 23:59:59 GMT", "x" * 5000):
        with ByteServer(answering(b"{}", f"Retry-After: {value}", status="429 Full")) as server:
            assert failing(server.base_url).type == "http_429"


@pytest.mark.parametrize(
    "value",
    [
        "Fri, 31 Dec 99999999999999999999 23:59:59 GMT",
        "Fri, 31 Dec 9999 23:59:59 +99999999999999",
        "Mon, 99999999999999999999 Jan 2001 00:00:00 GMT",
        "Mon, 01 Jan 2001 99999999999999999999:00:00 -0000",
    ],
)
def test_a_date_that_cannot_be_asks_for_no_wait(value):
    assert parse_retry_after(value) is None
    with ByteServer(answering(b"{}", f"Retry-After: {value}", status="429 Full")) as server:
        assert failing(server.base_url).type == "http_429"
        with pytest.raises(CallFailedError) as raised:
            call(server.base_url)
        assert raised.value.retry_after_s is None


_DATES = st.from_regex(
    r"[A-Z][a-z]{2}, [0-9]{1,22} (Jan|Dec|xyz) [0-9]{1,22} [0-9]{1,22}:[0-9]{1,3}(:[0-9]{1,22})? (GMT|[+-][0-9]{1,22})",
    fullmatch=True,
)


@given(st.text() | _DATES | st.floats().map(str) | st.integers().map(str))
def test_any_retry_after_text_gives_a_bounded_wait_or_none(value):
    seconds = parse_retry_after(value)
    assert seconds is None or 0 <= seconds <= 600


DEEP = 1000


@pytest.mark.parametrize(
    "content",
    [
        b'{"error": {"message": ' + b"[" * DEEP + b"]" * DEEP + b"}}",
        b'{"detail": ' + b'{"a": ' * DEEP + b"7" + b"}" * DEEP + b"}",
    ],
)
def test_an_error_nested_too_deep_is_shown_from_its_beginning(content):
    with ByteServer(answering(content, status="400 Bad")) as server:
        assert content[:100].decode() in failing(server.base_url).message
        with pytest.raises(CallFailedError, match="answers 400") as raised:
            call(server.base_url)
        assert raised.value.type == "http_400"


_NAMES = ["Retry-After", "Content-Encoding", "Content-Length", "Content-Type", "Location", "Transfer-Encoding", "X"]
_NAMES += ["Set-Cookie", "Connection", "Upgrade", "Link", "Content-Disposition", "WWW-Authenticate", "Refresh"]
_WORDS = ["gzip", "deflate", "chunked", "close", "5", "-1", "429", "text/event-stream", "text/plain; charset=x", "h2c"]
_HEADER = st.tuples(
    st.sampled_from(_NAMES) | st.text(max_size=9),
    _DATES | st.sampled_from(_WORDS) | st.text(max_size=30) | st.integers().map(str),
)
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
_KEYS = ["choices", "message", "content", "reasoning", "tool_calls", "function", "arguments", "id", "usage", "error"]
_KEYS += ["prompt_tokens", "completion_tokens", "finish_reason", "detail", "data", "root"]
_JSON = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner), max_leaves=20
)
_COMPLETIONS = st.builds(
    lambda message, usage: {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage},
    st.dictionaries(st.sampled_from(_KEYS), _JSON),
    _JSON,
)
_BODIES = st.binary(max_size=60) | (_JSON | _COMPLETIONS).map(lambda value: json.dumps(value).encode())
_STATUSES = st.sampled_from(["200 OK", "200 OK", "429 Full", "400 Bad", "500 Oh", "307 Moved", "204 None"])


@pytest.fixture(scope="module")
def any_server():
    """A server whose answer each example of a test sets."""
    answers_ = {}
    with ByteServer(lambda connection, _: connection.sendall(answers_["bytes"])) as server:
        yield server, answers_


@given(_STATUSES | st.text(max_size=9), st.lists(_HEADER, max_size=5), _BODIES, st.booleans())
@settings(max_examples=80)
def test_any_response_is_an_answer_or_a_failure(any_server, status, headers, body, measured):
    """Whatever else were raised would end a whole run."""
    server, answers_ = any_server
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers)]
    lines += [f"Content-Length: {len(body)}"] if measured else ["Connection: close"]
    answers_["bytes"] = "\r\n".join(lines).encode("utf-8", "surrogatepass") + b"\r\n\r\n" + body
    with suppress(RequestFailedError):
        complete(server.base_url, request_timeout_s=0.5)
    with suppress(CallFailedError):
        call(server.base_url, timeout_s=0.5)
    with suppress(NotAnsweringError):
        served_models(server.base_url, timeout_s=0.5)


@given(st.lists(st.binary(max_size=40), max_size=8), st.integers(0, 200))
def test_a_body_is_what_was_sent_or_refused(pieces, limit):
    body = AnswerBody("http://a", {}, limit=limit)
    content = b"".join(pieces)
    try:
        for piece in pieces:
            body.add(piece)
    except AnswerError:
        assert len(content) > limit
    else:
        assert body.content() == content
        assert len(content) <= limit


@given(st.binary(max_size=300), st.integers(0, 300), st.sampled_from(["gzip", "deflate", "raw"]))
def test_a_packed_body_is_unpacked_up_to_the_bound(content, limit, form):
    packing = zlib.compressobj(wbits={"gzip": 31, "deflate": 15, "raw": -15}[form])
    packed = packing.compress(content) + packing.flush()
    headers = {"Content-Encoding": "gzip" if form == "gzip" else "deflate"}
    body = AnswerBody("http://a", headers, limit=max(limit, len(packed)))
    body.add(packed)
    if len(content) <= max(limit, len(packed)):
        assert body.content() == content
    else:
        with pytest.raises(AnswerError, match="more than"):
            body.content()


def unpacked(packed, encoding="gzip", **bounds):
    body = AnswerBody("http://a", {"Content-Encoding": encoding}, **bounds)
    body.add(packed)
    return body.content()


@given(st.lists(st.binary(max_size=90), min_size=1, max_size=6), st.integers(0, 9), st.integers(0, 400))
def test_gzip_may_have_several_members_and_zeros_between(contents, zeros, limit):
    packed = b"".join(gzip.compress(content) + bytes(zeros) for content in contents)
    limit = max(limit, len(packed))
    if sum(map(len, contents)) <= limit:
        assert unpacked(packed, limit=limit) == b"".join(contents)
    else:
        with pytest.raises(AnswerError, match="more than"):
            unpacked(packed, limit=limit)


def test_a_bomb_of_several_members_is_not_unpacked():
    packed = gzip.compress(bytes(900)) * 2
    with pytest.raises(AnswerError, match="more than 1,000 bytes"):
        unpacked(packed, limit=1000)


def test_members_are_as_long_as_they_are():
    content = random.Random(0).randbytes(300_000)
    assert unpacked(gzip.compress(content) * 3) == content * 3
    assert unpacked(zlib.compress(content), "deflate") == content
    assert unpacked(gzip.compress(GOOD), "deflate") == GOOD  # as some servers call it


# By the clock, each test process would collect tests of other names: bytes are part of these.
@pytest.mark.parametrize(
    "packed",
    [
        gzip.compress(GOOD, mtime=0) + b"\n",
        gzip.compress(GOOD, mtime=0) + b"\0\n",
        gzip.compress(GOOD, mtime=0)[:-1],
        gzip.compress(GOOD, mtime=0) * 2 + b"\x1f\x8b",
        zlib.compress(GOOD) + b"\0",
        zlib.compress(GOOD) * 2,
        gzip.compress(b"", mtime=0) * 5000,
    ],
)
def test_what_else_follows_is_refused(packed):
    with pytest.raises(AnswerError, match=r"sends no gzip|sends a torn gzip"):
        unpacked(packed)


@given(st.binary(min_size=1, max_size=60), st.sampled_from(["gzip", "deflate"]))
def test_wrong_content_encoding_is_refused_or_decoded_within_limits(content, encoding):
    body = AnswerBody("http://a", {"Content-Encoding": encoding})
    body.add(content)
    try:
        unpacked = body.content()
    except AnswerError:
        return
    assert len(unpacked) <= answer_body.LARGEST_ANSWER


def test_a_server_s_words_have_a_bound():
    assert len(message_text("x" * 10**7, b"")) == len(message_text({"a": "x" * 10**7}, b"")) == 4000
