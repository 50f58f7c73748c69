import unittest

from spanset import Span, gaps, merge, total


class MergeTest(unittest.TestCase):
    def test_nothing(self):
        self.assertEqual(merge([]), [])
        self.assertEqual(merge(iter([])), [])

    def test_apart_in_order(self):
        self.assertEqual(merge([Span(7, 9), Span(0, 2)]), [Span(0, 2), Span(7, 9)])

    def test_overlapping(self):
        self.assertEqual(merge([Span(0, 5), Span(3, 9), Span(8, 12)]), [Span(0, 12)])

    def test_touching_are_one(self):
        self.assertEqual(merge([Span(4, 6), Span(0, 4)]), [Span(0, 6)])

    def test_one_within_another(self):
        self.assertEqual(merge([Span(0, 10), Span(2, 3), Span(11, 12)]), [Span(0, 10), Span(11, 12)])

    def test_one_joins_many(self):
        spans = [Span(0, 1), Span(10, 11), Span(20, 21), Span(1, 20)]
        self.assertEqual(merge(spans), [Span(0, 21)])

    def test_empty_spans_are_none(self):
        self.assertEqual(merge([Span(3, 3), Span(5, 6), Span(6, 6)]), [Span(5, 6)])

    def test_negative_numbers(self):
        self.assertEqual(merge([Span(-5, -1), Span(-2, 2)]), [Span(-5, 2)])

    def test_backwards_is_refused(self):
        with self.assertRaisesRegex(ValueError, "stops before it starts"):
            merge([Span(0, 1), Span(5, 4)])

    def test_input_is_left_alone(self):
        spans = [Span(5, 8), Span(1, 6)]
        merge(spans)
        self.assertEqual(spans, [Span(5, 8), Span(1, 6)])

    def test_results_are_spans(self):
        self.assertTrue(all(isinstance(span, Span) for span in merge([Span(0, 5), Span(2, 9), Span(20, 22)])))

    def test_takes_a_generator(self):
        self.assertEqual(merge(Span(n, n + 1) for n in (3, 1, 2)), [Span(1, 4)])


class AroundTest(unittest.TestCase):
    def test_total(self):
        self.assertEqual(total([Span(0, 5), Span(3, 9), Span(20, 21)]), 10)

    def test_gaps(self):
        self.assertEqual(gaps([Span(0, 9), Span(20, 21)], Span(5, 30)), [Span(9, 20), Span(21, 30)])

    def test_gaps_of_nothing(self):
        self.assertEqual(gaps([], Span(0, 3)), [Span(0, 3)])

    def test_no_gap(self):
        self.assertEqual(gaps([Span(-5, 40)], Span(0, 3)), [])


if __name__ == "__main__":
    unittest.main()
