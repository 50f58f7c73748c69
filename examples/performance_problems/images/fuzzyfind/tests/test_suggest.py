from unittest import TestCase, main

from fuzzyfind import Vocabulary, distance

KNOWN = ["add", "branch", "bisect", "checkout", "cherry-pick", "clone", "comment", "commit", "fetch", "merge", "reset"]


class Distance(TestCase):
    def test_known_ones(self):
        for one, other, expected in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("flaw", "lawn", 2),
            ("same", "same", 0),
            ("ab", "ba", 2),
            ("intention", "execution", 5),
        ]:
            with self.subTest(one=one, other=other):
                self.assertEqual(distance(one, other), expected)
                self.assertEqual(distance(other, one), expected)


class Suggest(TestCase):
    def setUp(self):
        self.vocabulary = Vocabulary(KNOWN)

    def test_one_letter_missing(self):
        self.assertEqual(self.vocabulary.suggest("comit", most=1), [("commit", 1)])

    def test_nearest_first(self):
        self.assertEqual(self.vocabulary.suggest("commet", most=2), [("comment", 1), ("commit", 1)])
        self.assertEqual(self.vocabulary.suggest("comment", most=3), [("comment", 0), ("commit", 2)])

    def test_itself(self):
        self.assertEqual(self.vocabulary.suggest("merge", most=0), [("merge", 0)])

    def test_nothing_near(self):
        self.assertEqual(self.vocabulary.suggest("xyzzy", most=2), [])

    def test_nothing_typed(self):
        self.assertEqual(self.vocabulary.suggest("", most=3), [("add", 3)])

    def test_far_is_allowed(self):
        self.assertEqual(len(self.vocabulary.suggest("q", most=100)), len(KNOWN))

    def test_letters_outside_ascii(self):
        self.assertEqual(Vocabulary(["größe", "grösse"]).suggest("grüße"), [("größe", 1)])

    def test_negative(self):
        with self.assertRaises(ValueError):
            self.vocabulary.suggest("add", most=-1)

    def test_is_a_set(self):
        vocabulary = Vocabulary(["b", "a", "b"])
        self.assertEqual(len(vocabulary), 2)
        self.assertIn("a", vocabulary)
        self.assertNotIn("c", vocabulary)


if __name__ == "__main__":
    main()
