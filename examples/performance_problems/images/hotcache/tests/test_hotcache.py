import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from hotcache import LRUCache, replay


def filled(**more):
    cache = LRUCache(3, **more)
    for key in "abc":
        cache.put(key, key.upper())
    return cache


class TestLRUCache(unittest.TestCase):
    def test_get(self):
        cache = filled()
        self.assertEqual(cache.get("a"), "A")
        self.assertIsNone(cache.get("z"))
        self.assertEqual(cache.get("z", 7), 7)

    def test_forgets_what_was_used_longest_ago(self):
        cache = filled()
        cache.get("a")
        cache.put("d", "D")
        self.assertEqual(cache.items(), [("c", "C"), ("a", "A"), ("d", "D")])

    def test_put_uses(self):
        cache = filled()
        cache.put("a", 1)
        cache.put("d", "D")
        self.assertNotIn("b", cache)
        self.assertEqual(cache.peek("a"), 1)

    def test_looking_does_not_use(self):
        cache = filled()
        self.assertIn("a", cache)
        self.assertEqual(cache.peek("a"), "A")
        cache.put("d", "D")
        self.assertNotIn("a", cache)
        self.assertEqual(cache.peek("a", "gone"), "gone")

    def test_eviction_is_told(self):
        told = []
        cache = filled(on_evict=lambda *pair: told.append(pair))
        cache.put("b", "replaced")
        cache.put("d", "D")
        cache.remove("c")
        self.assertEqual(told, [("a", "A")])

    def test_remove(self):
        cache = filled()
        self.assertEqual(cache.remove("b"), "B")
        self.assertEqual(len(cache), 2)
        with self.assertRaises(KeyError):
            cache.remove("b")

    def test_resize(self):
        told = []
        cache = filled(on_evict=lambda *pair: told.append(pair))
        cache.resize(1)
        self.assertEqual(told, [("a", "A"), ("b", "B")])
        self.assertEqual(cache.items(), [("c", "C")])
        cache.resize(2)
        cache.put("d", "D")
        self.assertEqual(len(cache), 2)

    def test_capacity(self):
        for capacity in (0, -1):
            with self.assertRaises(ValueError):
                LRUCache(capacity)
            with self.assertRaises(ValueError):
                filled().resize(capacity)

    def test_none_is_a_value(self):
        cache = LRUCache(2)
        cache.put("a", None)
        self.assertIn("a", cache)
        self.assertIsNone(cache.get("a", "default"))

    def test_items_is_a_copy(self):
        cache = filled()
        cache.items().clear()
        self.assertEqual(len(cache), 3)


class TestReplay(unittest.TestCase):
    def test_small(self):
        outcome = replay("abcabdaeab", 3)
        self.assertEqual((outcome.hits, outcome.misses), (4, 6))
        self.assertEqual(outcome.evicted, ["c", "b", "d"])
        self.assertEqual(outcome.kept, ["e", "a", "b"])


if __name__ == "__main__":
    unittest.main()
