import time

import orjson
import pytest
from pydantic import SecretStr

from rollmill.environments.search.remote import RemoteSearcher
from rollmill.environments.tools import Document
from rollmill.errors import InputError, ServingError
from rollmill.inference import backoff
from tests.inference.raw_server import RawServer


class Service:
    """Sends its responses in turn, and repeats the last one."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.bodies = []
        self._server = RawServer(self._answer)

    def _answer(self, headers, body):
        self.bodies.append(orjson.loads(body))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer if isinstance(answer, tuple) else (200, orjson.dumps(answer))

    def __enter__(self):
        self._server.__enter__()
        self.url = self._server.base_url.removesuffix("/v1")
        self.headers = self._server.headers
        return self

    def __exit__(self, *error):
        self._server.__exit__(*error)


def response(*items):
    return {"result": [list(items)]}


ITEM = {"document": {"id": "12", "contents": '"A title"\nThe text\nof it'}, "score": 7.5}


@pytest.fixture
def searching(request):
    searchers = []

    def make(service, **options):
        searchers.append(RemoteSearcher(service.url, **options))
        return searchers[-1]

    yield make
    for searcher in searchers:
        searcher.close()


def test_the_protocol_of_search_r1(searching):
    with Service(response(ITEM, {**ITEM, "score": 3})) as service:
        documents = searching(service, token=SecretStr("k")).search(" a query \ud800", 1)
        assert documents == [Document("12", "A title", "The text\nof it", 7.5)]
        assert service.bodies == [{"queries": ["a query ?"], "topk": 1, "return_scores": True}]
        assert service.headers[0]["Authorization"] == "Bearer k"


def test_other_shapes_of_documents(searching):
    with Service(
        response(
            {"id": 3, "title": "T", "text": "x"}, {"document": {"contents": "no id"}, "score": "0.5"}, {"text": "y"}
        )
    ) as service:
        assert searching(service).search("q", 5) == [
            Document("3", "T", "x", -1.0),
            Document("no id", "", "no id", 0.5),
            Document("y", "", "y", -3.0),
        ]


def test_empty_query_is_not_sent(searching):
    with Service(response()) as service:
        searcher = searching(service)
        assert searcher.search("  ", 3) == searcher.search("a", 0) == []
        assert service.bodies == []
        assert searcher.search("a", 3) == []


def test_transient_failures_are_retried(searching, monkeypatch):
    monkeypatch.setattr(backoff, "_LONGEST_BACKOFF_S", 0.01)
    with Service((500, b"oh"), (503, b"busy"), (502, b""), response(ITEM)) as service:
        assert len(searching(service).search("q", 3)) == 1
        assert len(service.bodies) == 4


def test_unreachable_service_is_reported(searching, monkeypatch):
    monkeypatch.setattr(backoff, "_LONGEST_BACKOFF_S", 0.01)
    with Service((500, b'{"detail": "index lost"}')) as service:
        searcher = searching(service, max_retries=2)
        with pytest.raises(ServingError, match="/retrieve answers 500: index lost"):
            searcher.search("q", 3)
        assert len(service.bodies) == 3
    with pytest.raises(ServingError, match="no service answers at"):
        RemoteSearcher(service.url, max_retries=1).search("q", 3)


def test_permanent_error_is_not_retried(searching):
    with Service((401, b'{"detail": "no"}')) as service:
        with pytest.raises(ServingError, match="answers 401: no: set ROLLMILL_SEARCH_TOKEN to its token"):
            searching(service).search("q", 3)
        assert len(service.bodies) == 1


@pytest.mark.parametrize(
    "answer",
    [
        (200, b"<html>"), (200, b"[]"), {}, {"result": []}, {"result": [[], []]}, {"result": 5}, {"result": [5]},
        {"result": [[5]]}, {"result": [[{"document": {}}]]}, {"result": [[{"document": {"contents": 5}}]]},
        {"result": [[{"document": {"title": 5, "text": "x"}}]]}, {"result": [[{**ITEM, "score": "high"}]]},
        {"result": {"a": 1}}, {"result": [{"a": 1}]}, {"result": [None]}, {"result": ["text"]},
    ],
)  # fmt: skip
def test_malformed_answer_raises_without_a_retry(searching, answer):
    with Service(answer) as service:
        with pytest.raises(ServingError, match="/retrieve"):
            searching(service).search("q", 3)
        assert len(service.bodies) == 1


def test_invalid_address_is_refused():
    with pytest.raises(InputError, match="is not the address of a service"):
        RemoteSearcher("ftp://x")


def test_slow_service_times_out(searching):
    def slow(headers, body):
        time.sleep(1.5)
        return 200, b"{}"

    with RawServer(slow) as server:
        searcher = RemoteSearcher(server.base_url, timeout_s=0.2, max_retries=0)
        with pytest.raises(ServingError, match=r"did not answer within 0.2 s"):
            searcher.search("q", 3)
        searcher.close()
