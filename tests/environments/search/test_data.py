"""The built-in corpus and questions."""

import orjson
import pytest

from rollmill.environments.search.corpus import OWN_QUESTIONS, read_corpus
from rollmill.environments.search.index import open_index
from rollmill.environments.search.scoring import normalized
from rollmill.environments.search.settings import SearchSettings

TOP_K = SearchSettings().top_k
DOCUMENTS = {document.id: document for document in read_corpus("")}
QUESTIONS = [orjson.loads(line) for line in OWN_QUESTIONS.read_bytes().splitlines()]


@pytest.fixture(scope="module")
def index():
    with open_index("") as built:
        yield built


def words(text):
    return f" {normalized(text)} "


def subject(document):
    return set(words(document.title).split()) - {"opera", "frigate", "of"}


def find_ids(index, queries):
    return {document.id for query in queries for document in index.search(query, TOP_K)}


def test_half_of_the_questions_need_two_documents():
    assert len(DOCUMENTS) >= 120
    assert len(QUESTIONS) == 60
    assert sum(len(question["supports"]) == 2 for question in QUESTIONS) == 30
    assert {len(question["supports"]) for question in QUESTIONS} == {1, 2}
    for key in ("id", "question"):
        assert len({question[key] for question in QUESTIONS}) == 60
    assert len({document.title for document in DOCUMENTS.values()}) == len(DOCUMENTS)
    assert len({document.text for document in DOCUMENTS.values()}) == len(DOCUMENTS)


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question["id"])
def test_answer_is_in_the_last_document_but_not_the_question(question):
    assert set(question["supports"]) <= DOCUMENTS.keys()
    last = DOCUMENTS[question["supports"][-1]]
    assert words(question["answer"]) in words(f"{last.title} {last.text}")
    for accepted in (question["answer"], *question["aliases"]):
        assert normalized(accepted)
        assert words(accepted) not in words(question["question"])
    assert len({normalized(accepted) for accepted in (question["answer"], *question["aliases"])}) == 1 + len(
        question["aliases"]
    )


def test_two_documents_are_linked_by_a_name():
    """The second document's subject is named in the first: the first tells which query comes next."""
    for question in QUESTIONS:
        if len(question["supports"]) == 2:
            first, second = (DOCUMENTS[support] for support in question["supports"])
            assert subject(second) & set(words(first.text).split()) or subject(first) <= set(words(second.text).split())


def test_the_queries_find_the_documents(index):
    for question in QUESTIONS:
        assert set(question["supports"]) <= find_ids(index, question["queries"]), question["id"]


def test_the_question_alone_finds_one_document_but_often_not_two(index):
    both = 0
    for question in QUESTIONS:
        hits = find_ids(index, [question["question"]]) >= set(question["supports"])
        if len(question["supports"]) == 1:
            assert hits, question["id"]
        else:
            both += hits
    assert both <= 20
