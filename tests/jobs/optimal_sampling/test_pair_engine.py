"""Pairing of the rows of vLLM's batch, without vLLM."""

import pytest
import torch

from rollmill.errors import RunStoppedError
from rollmill.jobs.optimal_sampling.pair_engine.batch import PairBatch, PairRow, PairSample
from rollmill.jobs.optimal_sampling.token_sampler import TokenSampler, Uniforms

IDS = 20


def row(sample, side, *tokens):
    return PairRow(sample, side, list(tokens))


@pytest.fixture
def batch():
    result = PairBatch()
    result.sampler, result.vocabulary = TokenSampler(), IDS - 2  # a model rounds up
    result.samples = {number: PairSample(f"row {number}", Uniforms(number)) for number in (1, 2, 3)}
    return result


def logits(rows, seed=0):
    return torch.randn((rows, IDS), generator=torch.Generator().manual_seed(seed)) * 3


def alone(theta, t, seed, index=0):
    """The token that two rows of logits give."""
    cut = theta[None, : IDS - 2], t[None, : IDS - 2]
    return TokenSampler().draw(*cut, [Uniforms(seed)[index]]).tokens[0]


def test_rows_of_a_pair_get_the_same_token_at_any_index(batch):
    batch.update([], [(0, row(1, 0)), (1, row(2, 1)), (2, None), (3, row(2, 0)), (4, row(1, 1))], [])
    options = logits(5)
    before = options.clone()
    options[2, 7] = before[2, 7] = 50.0
    after = batch.draw_into(options)
    item, two = alone(before[0], before[4], 1), alone(before[3], before[1], 2)
    assert after.argmax(-1).tolist() == [item, two, 7, two, item]
    assert torch.equal(after[2], before[2])
    assert (batch.samples[1].position, batch.samples[1].token, len(batch.samples[1].diagnostics)) == (0, item, 5)
    assert batch.samples[1].logprob < 0


def test_moved_and_removed_rows_are_followed(batch):
    batch.update([], [(0, row(1, 0)), (1, row(1, 1)), (2, row(2, 0)), (3, row(2, 1))], [])
    batch.update([0], [], [(3, 0, False)])  # 1's first row went, and 2's second one took its place
    batch.update([], [(3, row(3, 0))], [(2, 3, True)])
    batch.update([], [(1, row(3, 1))], [])
    options = logits(4)
    before = options.clone()
    three, two = alone(before[2], before[1], 3), alone(before[3], before[0], 2)
    assert batch.draw_into(options).argmax(-1).tolist() == [two, three, three, two]


def test_row_without_its_partner_or_behind_it_is_unchanged(batch):
    batch.update([], [(0, row(1, 0, 5)), (1, row(1, 1)), (2, row(2, 0)), (3, row(9, 0)), (4, row(9, 1))], [])
    options = logits(5)
    before = options.clone()
    assert torch.equal(batch.draw_into(options), before)
    assert batch.samples[1].position == -1


def test_a_position_sampled_again_has_the_same_uniform(batch):
    """Both rows may be read in parts: what is drawn in between is not given, and drawn again."""
    first, second = row(1, 0), row(1, 1)
    batch.update([], [(0, first), (1, second)], [])
    batch.draw_into(logits(2, seed=5))
    options = logits(2)
    token = alone(options[0], options[1], 1)
    assert batch.draw_into(options).argmax(-1).tolist() == [token, token]
    first.tokens.append(token)
    second.tokens.append(token)
    options = logits(2, seed=6)
    token = alone(options[0], options[1], 1, index=1)
    assert batch.draw_into(options).argmax(-1).tolist() == [token, token]
    assert batch.samples[1].position == 1


def test_logits_that_are_not_finite(batch):
    batch.update([], [(0, row(1, 0)), (1, row(1, 1)), (2, row(2, 0, 4)), (3, row(2, 1, 4))], [])
    options = logits(4)
    options[3, 2] = torch.nan
    with pytest.raises(RunStoppedError, match="logits for row 2 are not finite after 1 tokens"):
        batch.draw_into(options)


def test_a_batch_without_pairs_is_unchanged(batch):
    options = logits(3)
    assert torch.equal(batch.draw_into(options), options)
    batch.update([0, 1], [(0, None)], [(2, 1, False), (4, 5, True)])
    assert torch.equal(batch.draw_into(options), options)
