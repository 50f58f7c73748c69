from rollmill.statistics.failures import FailureCounts, FailureWords


def test_failures_that_differ_only_in_numbers_are_grouped():
    counts = FailureCounts()
    for tokens in (5000, 6000, 7):
        counts.add("http_400", f"you requested\n{tokens} tokens")
    counts.add("timeout", "no answer within 5 s")
    assert counts.most_common() == [
        FailureWords("http_400", "you requested 5000 tokens", 3),
        FailureWords("timeout", "no answer within 5 s", 1),
    ]
    assert counts.total == 4


def test_number_of_groups_is_bounded():
    counts = FailureCounts()
    for number in range(3000):
        counts.add("http_500", chr(0x4E00 + number) * 10_000)
    assert len(counts.most_common()) == 1001
    assert sum(each.count for each in counts.most_common()) == 3000
    assert max(len(each.words) for each in counts.most_common()) <= 200
