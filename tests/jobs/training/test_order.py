from hypothesis import given
from hypothesis import strategies as st

from rollmill.jobs.training.order import EpochSampler, epoch_order, steps_per_epoch

lengths = st.lists(st.integers(1, 100), min_size=1, max_size=200)


@given(lengths, st.integers(0, 3), st.integers(0, 3), st.none() | st.integers(1, 16))
def test_each_epoch_has_every_row_once_in_a_fixed_order(lengths, seed, epoch, group):
    order = epoch_order(lengths, seed=seed, epoch=epoch, group=group)
    assert sorted(order) == list(range(len(lengths)))
    assert order == epoch_order(lengths, seed=seed, epoch=epoch, group=group)


def test_epochs_and_seeds_differ():
    rows = [1] * 50
    orders = [tuple(epoch_order(rows, seed=s, epoch=e, group=g)) for s in (0, 1) for e in (0, 1) for g in (None, 4)]
    assert len(set(orders[::2])) == len(set(orders[1::2])) == 4


def test_groups_have_similar_lengths_and_the_longest_row_is_first():
    rows = [(7 * n) % 100 + 1 for n in range(400)]
    order = epoch_order(rows, seed=0, epoch=0, group=8)
    assert rows[order[0]] == 100

    def spread(rows_in_order):
        groups = [rows_in_order[begin : begin + 8] for begin in range(8, 400, 8)]
        return sum(max(group) - min(group) for group in groups) / len(groups)

    grouped = spread([rows[row] for row in order])
    assert grouped < spread([rows[row] for row in epoch_order(rows, seed=0, epoch=0, group=None)]) / 5


def test_the_sampler_follows_the_epoch():
    now = [0]
    sampler = EpochSampler([1] * 20, seed=3, group=None, epoch=lambda: now[0])
    first = list(sampler)
    now[0] = 1
    assert list(sampler) == epoch_order([1] * 20, seed=3, epoch=1, group=None) != first
    assert len(sampler) == 20


def test_steps_of_an_epoch():
    assert steps_per_epoch(1, batch_size=2, accumulation=8) == 1
    assert steps_per_epoch(16, batch_size=2, accumulation=8) == 1
    assert steps_per_epoch(17, batch_size=2, accumulation=8) == 2
    assert steps_per_epoch(33, batch_size=2, accumulation=8, processes=2) == 2
