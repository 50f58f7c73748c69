import asyncio
import json
import math
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollmill.environments.registry import find_environment
from rollmill.environments.search.corpus import CorpusDocument
from rollmill.environments.search.environment import SearchEnvironment
from rollmill.environments.search.index import FullTextIndex, open_index
from rollmill.environments.search.settings import SearchSettings
from rollmill.environments.tools import Tools
from rollmill.errors import InputError, ServingError
from rollmill.jobs.episodes.episode import EpisodePolicies, run_episode
from rollmill.jobs.episodes.images import ImageFolder
from rollmill.jobs.episodes.policies import DemonstrationPolicy
from rollmill.problems import load_problems, read_problems
from rollmill.records import Image, Problem

DOCUMENTS = [
    CorpusDocument("arden", "Arden", "Arden is a town. It was founded by Mina Stone."),
    CorpusDocument("mina", "Mina Stone", "Mina Stone was born in Lower Wick. " + "She liked it. " * 100),
    CorpusDocument("other", "Lower Arden", "Lower Arden is a village with a pond and a pub."),
]
FIELDS = {
    "aliases": ["the village of Lower Wick"],
    "supports": ["arden", "Mina Stone"],
    "queries": ["Arden founded by", "Mina Stone born"],
}


@pytest.fixture(scope="module")
def index():
    with FullTextIndex(DOCUMENTS) as built:
        yield built


@pytest.fixture(scope="module")
def own_index():
    with open_index("") as built:
        yield built


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    folder = tmp_path_factory.mktemp("problems")
    settings = SearchSettings()
    loaded = load_problems(
        SearchEnvironment.source(settings, folder),
        folder,
        problem_fault=lambda problem: SearchEnvironment.problem_fault(settings, problem),
    )
    assert (loaded.count, loaded.quarantined) == (60, 0)
    return list(read_problems(loaded.path))


def problem(answer="Lower Wick", **fields):
    return Problem(instance_id="p", prompt="Where was the founder of Arden born?", answer=answer, fields=fields)


def new(searcher, custom_problem=None, **values):
    return SearchEnvironment.make(
        custom_problem or problem(**FIELDS), 0, SearchSettings(**{"top_k": 1} | values), Tools(searcher=searcher)
    )


def say(environment, agent, text):
    environment.agents[agent].prompt()
    return environment.agents[agent].act(text)


def shown(environment, agent):
    return environment.agents[agent].prompt()[-1]["content"]


def test_search_env_is_registered():
    assert find_environment("search_env") is SearchEnvironment
    assert SearchEnvironment.agent_names(SearchSettings()) == ("decomposer", "searcher", "answerer")


def play_first_turn(environment):
    """Play a turn whose answerer requests more."""
    say(environment, "decomposer", "<questions>Who founded Arden?</questions>")
    say(environment, "searcher", "<search>Arden founded</search>")
    say(environment, "answerer", "<more>her birthplace</more>")


def test_each_prompt_has_the_results_of_the_agents_before(index):
    environment = new(index)
    assert environment.turn_order == ("decomposer", "searcher", "answerer")
    step = say(environment, "decomposer", "<questions>\nWho founded Arden?\n- And then what?\n\n</questions>")
    assert step == (0.5, {"questions": ["Who founded Arden?", "And then what?"], "left_out": 0})
    assert "- Who founded Arden?\n- And then what?" in shown(environment, "searcher")
    step = say(environment, "searcher", "<search>Arden founded</search>")
    assert step == (0.5, {"hits": {"Arden founded": ["arden"]}, "left_out": 0})
    assert "[Arden] Arden is a town. It was founded by Mina Stone." in shown(environment, "answerer")
    assert say(environment, "answerer", "<more>her birthplace</more>") == (0.0, {"more": "her birthplace"})
    assert (environment.done, environment.success) == (False, False)


def test_the_second_turn_shows_what_is_missing_and_found(index):
    environment = new(index)
    play_first_turn(environment)
    assert "Still missing: her birthplace" in shown(environment, "decomposer")
    assert say(environment, "decomposer", "<questions>Where was Mina Stone born?</questions>").reward == 1.0
    assert "Still missing: her birthplace" in shown(environment, "searcher")
    assert "- Arden founded (1 new)" in shown(environment, "searcher")
    assert say(environment, "searcher", "<search>Mina Stone born</search> <search>arden founded</search>").reward == 1.0


def test_the_right_answer_ends_the_episode_with_success(index):
    environment = new(index)
    play_first_turn(environment)
    say(environment, "decomposer", "<questions>Where was Mina Stone born?</questions>")
    say(environment, "searcher", "<search>Mina Stone born</search>")
    step = say(environment, "answerer", "I see. <answer>lower wick.</answer>")
    assert step == (1.0, {"answer": "lower wick.", "right": True})
    assert (environment.done, environment.success) == (True, True)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("Lower Wick", True),
        ("village of lower wick", True),
        ("Wick", False),
        ("Lower Wick or Arden", False),
        ("Mina Stone was born in Lower Wick", False),
    ],
)
def test_only_an_exact_answer_is_a_success(index, answer, right):
    environment = new(index)
    step = say(environment, "answerer", f"<answer>{answer}</answer>")
    assert step.reward == float(right)
    assert (environment.done, environment.success) == (True, right)


def test_the_last_well_formed_block_counts(index):
    environment = new(index)
    assert say(environment, "answerer", "<answer>Lower Wick</answer> no: <more>it</more>").info == {"more": "it"}
    assert not environment.done
    say(environment, "answerer", "<answer>Arden</answer><more>it</more><answer>Lower Wick</answer><answer>x")
    assert environment.success is True


@pytest.mark.parametrize(
    ("agent", "message", "fault"),
    [
        ("decomposer", "Who founded Arden?", "no <questions>"),
        ("decomposer", "<questions>\n</questions>", "no <questions>"),
        ("searcher", "Arden", "no <search>"),
        ("searcher", "<search></search><search>Arden", "no <search>"),
        ("answerer", "Lower Wick", "neither <answer>"),
        ("answerer", "<answer> </answer>", "neither <answer>"),
        ("answerer", "<Answer>Lower Wick</Answer>", "neither <answer>"),
    ],
)
def test_malformed_turn_is_penalised_and_shown_to_its_agent_only(index, agent, message, fault):
    environment = new(index)
    step = say(environment, agent, message)
    assert step.reward == -0.5
    assert fault in step.info["fault"]
    for other in environment.turn_order:
        assert ("did not count" in shown(environment, other)) == (other == agent)
    assert (environment.done, environment.success) == (False, False)
    say(environment, agent, "<questions>a</questions><search>a</search><more>a</more>")
    assert "did not count" not in shown(environment, agent)


def test_settings_bound_what_is_searched_and_shown(index):
    environment = new(index, top_k=3, max_queries=2, max_documents=1, document_chars=50)
    step = say(environment, "searcher", "<search>Arden</search><search>pond</search><search>Stone</search>")
    assert step.info == {"hits": {"Arden": ["arden", "other"], "pond": ["other"]}, "left_out": 1}
    text = shown(environment, "answerer")
    assert "[Lower Arden]" in text
    assert "[Arden]" not in text
    say(environment, "searcher", "<search>Stone</search>")
    assert "[Mina Stone] Mina Stone was born in Lower Wick. She liked it. S..." in shown(environment, "answerer")
    step = say(environment, "decomposer", "<questions>1\n2\n3</questions>")
    assert step.info == {"questions": ["1", "2"], "left_out": 1}


def test_without_supports_only_answers_are_rewarded(index):
    environment = new(index, problem())
    assert say(environment, "decomposer", "<questions>Who founded Arden?</questions>").reward == 0.0
    assert say(environment, "searcher", "<search>Mina Stone</search>").reward == 0.0
    assert say(environment, "answerer", environment.agents["answerer"].oracle()).reward == 1.0


def test_the_answer_is_in_no_prompt_before_it_is_found(index):
    environment = new(index)
    for agent in environment.turn_order:
        assert "Wick" not in json.dumps(environment.agents[agent].prompt())


@given(st.text())
@settings(deadline=None)
def test_any_text_is_a_step(index, text):
    environment = new(index)
    for agent, tag in (("decomposer", "questions"), ("searcher", "search"), ("answerer", "answer")):
        for message in (text, f"<{tag}>{text}</{tag}>", f"<{tag}>{text * 500}</{tag}>"):
            step = say(environment, agent, message)
            assert math.isfinite(step.reward)
            json.dumps(step.info).encode()
            assert len(shown(environment, agent)) < 20_000
    assert environment.success is False


def test_unreachable_search_service_is_a_failure():
    class Unreachable:
        def search(self, query, top_k):
            raise ServingError("it is gone")

    with pytest.raises(ServingError):
        say(new(Unreachable()), "searcher", "<search>a</search>")


def test_unusable_problem_is_refused_with_a_reason():
    def fault(custom_problem):
        return SearchEnvironment.problem_fault(SearchSettings(), custom_problem)

    assert fault(problem(**FIELDS)) is None
    assert fault(problem()) is None
    assert fault(problem(aliases=None)) is None
    assert fault(problem(None)) == "there is no answer"
    assert fault(problem(" The ")) == "the answer has no words in it"
    assert fault(problem(aliases="x")) == "fields.aliases is no list of texts"
    assert fault(problem(supports=[1])) == "fields.supports is no list of texts"
    picture = problem().model_copy(update={"images": (Image(path="a", media_type="image/png", sha256="b"),)})
    assert fault(picture) == "it has images, and this environment shows text alone"
    with pytest.raises(ValueError, match="needs something to search in"):
        SearchEnvironment.make(problem(), 0, SearchSettings(), Tools())
    with pytest.raises(ValueError, match="there is no answer"):
        SearchEnvironment.make(problem(None), 0, SearchSettings(), Tools(searcher=object()))


def test_another_corpus_needs_other_questions(tmp_path):
    with pytest.raises(InputError, match=r"no questions about the corpus mine.jsonl: name a data set .* --dataset"):
        SearchEnvironment.source(SearchSettings(corpus="mine.jsonl"), tmp_path)


def test_the_corpus_is_part_of_the_identity(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    built_in, other = SearchSettings(), SearchSettings(corpus=str(tmp_path))
    first = SearchEnvironment.identity(other)
    assert first != SearchEnvironment.identity(built_in) == SearchEnvironment.identity(built_in)
    (tmp_path / "a.txt").write_text("two")
    assert SearchEnvironment.identity(other) != first


def episodes(kind, problems, searcher, folder, seed=0):
    policy = DemonstrationPolicy(kind, kind)
    cast = EpisodePolicies(dict.fromkeys(("decomposer", "searcher", "answerer"), policy), 3, ImageFolder(folder))

    async def all_of_them():
        with ThreadPoolExecutor(4) as threads:

            async def in_thread(call):
                return await asyncio.get_running_loop().run_in_executor(threads, call)

            def make(problem):
                return lambda: SearchEnvironment.make(problem, 0, SearchSettings(), Tools(searcher=searcher))

            playing = [
                run_episode(make(problem), cast, seed=seed + number, in_thread=in_thread)
                for number, problem in enumerate(problems)
            ]
            return await asyncio.gather(*playing)

    return asyncio.run(all_of_them())


def test_the_oracle_solves_all_and_finds_every_support(problems, own_index, tmp_path):
    for episode in episodes("oracle", problems, own_index, tmp_path):
        assert (episode.success, episode.error, len(episode.turns)) == (True, None, 3)
        assert [turn.reward for turn in episode.turns] == [1.0, 1.0, 1.0]


def test_random_policy_solves_no_problem(problems, own_index, tmp_path):
    for seed in range(0, 1000, 100):
        for episode in episodes("random", problems, own_index, tmp_path, seed):
            assert (episode.success, episode.error) == (False, None)


def test_episodes_are_reproducible(problems, own_index, tmp_path):
    first, again = (episodes("random", problems[:5], own_index, tmp_path, 3) for _ in range(2))
    assert [(episode.messages, episode.turns) for episode in first] == [
        (episode.messages, episode.turns) for episode in again
    ]


def test_a_random_source_is_enough_for_a_demonstration(own_index, problems):
    agents = new(own_index, problems[0]).agents
    for agent in agents.values():
        assert agent.random(random.Random(1)) == agent.random(random.Random(1))
