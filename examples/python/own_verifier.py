"""Score rollouts with a verifier of your own: a function of a problem and a completion.

    python examples/python/own_verifier.py

The verifier pays 1 for the right answer as JSON, 0.2 for a wrong one in that format, and nothing for other text. A
scripted server stands in for vLLM, so this takes seconds. For a real model give its directory as `model_path` and leave
`base_url` out: vLLM is then started for it. The same in a shell:
`python -m flows.reject_sampling --verifier own_verifier:json_answer`, with this file's folder on `PYTHONPATH`.
"""

import json
from pathlib import Path

from rollmill.inference.scripted import Conversation, Script, ScriptedServer
from rollmill.records import Problem

PROBLEMS = [
    {"id": "sum", "question": 'What is 3 + 5? Reply with JSON: {"answer": NUMBER}.', "answer": 8},
    {"id": "product", "question": 'What is 3 * 3? Reply with JSON: {"answer": NUMBER}.', "answer": 9},
    {"id": "power", "question": 'What is 3 ** 4? Reply with JSON: {"answer": NUMBER}.', "answer": 81},
]
# `{digit}` is the last digit of the request's seed, which differs from rollout to rollout.
MODEL = Script(
    completion='{"answer": {digit}}',
    conversations=[Conversation(when="3 ** 4", answers=["I think that it is 81."])],
)


def json_answer(problem: Problem, completion: str) -> float:
    """Return the reward of a completion."""
    try:
        answer = json.loads(completion)["answer"]
    except (ValueError, KeyError, TypeError):
        return 0.0
    return 1.0 if str(answer) == problem.answer else 0.2


def main() -> None:
    """Sample 8 completions of each problem, score them, and print what was kept as training data."""
    # Imported here because verifier processes import this file, and do not need Prefect.
    from flows.reject_sampling import RejectSampling, reject_sampling

    folder = Path("example_runs/own_verifier")
    folder.mkdir(parents=True, exist_ok=True)
    dataset = folder / "problems.jsonl"
    dataset.write_text("".join(json.dumps(problem) + "\n" for problem in PROBLEMS))
    with ScriptedServer(MODEL) as server:
        parameters = RejectSampling(
            model_path=["scripted"],
            model_name=["scripted"],
            base_url=[server.base_url],
            dataset=str(dataset),
            verifier="own_verifier:json_answer",
            num_rollout=8,
            output_dir=str(folder),
        )
        [outcome] = reject_sampling(parameters)  # one run for each model
    print(outcome.headline())
    for row in json.loads(outcome.files["results"].read_text())["results"]:
        rewards = [round(1 - error, 1) for error in row["errors"]]
        print(f"{row['instance_id']}: rewards {rewards}, {row['accepted']} accepted")
    print(f"training data, without duplicates: {outcome.kept} rows in {outcome.files['training data']}")


if __name__ == "__main__":
    main()
