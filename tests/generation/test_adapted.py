"""Requests adapted to servers: in a run's identity, in its manifest, and when it is continued."""

import orjson
import pytest

from rollmill.errors import InputError
from rollmill.generation.job import adapt_to_servers, opened_run, read_request_changes
from rollmill.generation.services import GeneratorContext
from rollmill.generation.session import RolloutSession
from rollmill.inference.request_changes import RequestChanges
from rollmill.jobs.rejection_sampling.job import jobs
from rollmill.jobs.rejection_sampling.parameters import RejectSampling
from tests.inference.test_trial import server_that, unsupported


def job(tmp_path, server, **arguments):
    tmp_path.mkdir(exist_ok=True)
    data = tmp_path / "problems.jsonl"
    data.write_text('{"prompt": "What is 2+2?", "answer": "4"}\n')
    fields = {"model_path": "m", "model_name": "m", "dataset": str(data), "num_rollout": 1, "temperature": 0.7}
    paths = {"base_url": server.base_url, "output_dir": str(tmp_path / "out"), "log_dir": str(tmp_path / "logs")}
    (result,) = jobs(RejectSampling(**{**fields, **paths, **arguments}))
    return result


def refusing(*names):
    return server_that(lambda request: next((unsupported(name) for name in names if name in request), None))


def run_of(adapted):
    with opened_run(adapted) as run, adapted.open_generator(GeneratorContext()) as generator:
        with RolloutSession(run, generator, slots=1, progress=adapted.progress(run)) as session:
            session.generate(list(run.problems()))
        return run.manifest, [rollout for _, rollouts in run.groups() for rollout in rollouts]


def test_what_is_left_out_of_the_sampling_is_part_of_the_identity(tmp_path):
    with refusing() as server:
        plain, _ = run_of(adapt_to_servers(job(tmp_path / "a", server)))
    with refusing("temperature") as server:
        with pytest.raises(InputError, match="--drop_params"):
            adapt_to_servers(job(tmp_path / "b", server))
        without, (rollout,) = run_of(adapt_to_servers(job(tmp_path / "b", server, drop_params=True)))
        assert "temperature" not in server.requests[-1]
    assert without.identity.generation == plain.identity.generation | {"left_out": {"model": ["temperature"]}}
    assert without.request_changes == {"model": RequestChanges(left_out=("temperature",))}
    assert any("temperature" in note for note in without.notes)
    assert rollout.completion == "OK"


def test_other_names_and_a_missing_seed_make_no_other_run(tmp_path):
    with refusing() as server:
        plain, _ = run_of(adapt_to_servers(job(tmp_path / "a", server)))
    with refusing("max_tokens", "seed") as server:
        adapted, (rollout,) = run_of(adapt_to_servers(job(tmp_path / "b", server)))
    assert adapted.identity == plain.identity
    assert plain.request_changes == {}
    assert len(adapted.notes) == 2
    assert (rollout.completion, rollout.model_calls) == ("OK", 1)


def test_a_run_goes_on_as_it_was_begun(tmp_path):
    with refusing("temperature") as server:
        adapted = adapt_to_servers(job(tmp_path, server, drop_params=True))
        manifest, _ = run_of(adapted)
        again = job(tmp_path, server, drop_params=True)
        assert read_request_changes(again) == manifest.request_changes
        with opened_run(again) as run:  # no server is asked for what is complete
            assert run.manifest.identity == manifest.identity
            assert run.missing() == 0
        more = adapt_to_servers(job(tmp_path, server, drop_params=True, num_rollout=2))
        assert run_of(more)[0].identity == manifest.identity
    with refusing() as other, pytest.raises(InputError, match=r"leave out {'model': \['temperature'\]}, and now"):
        adapt_to_servers(job(tmp_path, other, drop_params=True))


def test_a_job_for_a_worker_keeps_its_changes(tmp_path):
    with refusing("seed") as server:
        adapted = adapt_to_servers(job(tmp_path, server))
    assert adapted.for_worker().changes_for() == adapted.changes_for() == RequestChanges(left_out=("seed",))
    assert hash(adapted.request_changes)


def test_a_manifest_of_before_has_no_changes(tmp_path):
    with refusing() as server:
        manifest, _ = run_of(job(tmp_path, server))
        path = tmp_path / "out" / "m" / "manifest.json"
        older = orjson.loads(path.read_bytes())
        del older["request_changes"]
        path.write_bytes(orjson.dumps(older))
        with opened_run(job(tmp_path, server)) as run:
            assert run.manifest.identity == manifest.identity
