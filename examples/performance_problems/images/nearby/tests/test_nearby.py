import random
import unittest

from nearby import Hit, Index
from places import Place, dump, load

STOPS = [
    Place(0, 0, "Depot"),
    Place(300, 400, "Mill"),
    Place(-300, 400, "Arch"),
    Place(5000, 0, "Quarry"),
    Place(0, -90, "Quay"),
]


def names(hits):
    return [hit.place.name for hit in hits]


class NearestTest(unittest.TestCase):
    def setUp(self):
        self.index = Index(STOPS)

    def test_nearest(self):
        self.assertEqual(self.index.nearest(1, -80), [Hit(101, STOPS[4])])

    def test_in_order_and_by_name(self):
        self.assertEqual(names(self.index.nearest(0, 0, 4)), ["Depot", "Quay", "Arch", "Mill"])

    def test_more_than_there_are(self):
        self.assertEqual(names(self.index.nearest(0, 0, 99)), ["Depot", "Quay", "Arch", "Mill", "Quarry"])
        self.assertEqual(self.index.nearest(0, 0, 0), [])

    def test_far_away(self):
        self.assertEqual(names(self.index.nearest(10**7, -(10**7), 2)), ["Quarry", "Quay"])

    def test_nothing(self):
        self.assertEqual(Index([]).nearest(3, 4, 2), [])
        self.assertEqual(Index([]).within(3, 4, 2), [])

    def test_same_point(self):
        index = Index([Place(7, 7, name) for name in "dacb"])
        self.assertEqual(names(index.nearest(7, 8, 3)), ["a", "b", "c"])

    def test_the_list_may_change_afterwards(self):
        stops = list(STOPS)
        index = Index(stops)
        stops.clear()
        self.assertEqual(len(index), 5)
        self.assertEqual(len(index.nearest(0, 0, 9)), 5)


class WithinTest(unittest.TestCase):
    def test_the_border_counts(self):
        self.assertEqual(names(Index(STOPS).within(0, 0, 500)), ["Depot", "Quay", "Arch", "Mill"])
        self.assertEqual(names(Index(STOPS).within(0, 0, 499)), ["Depot", "Quay"])

    def test_radius_zero(self):
        self.assertEqual(names(Index(STOPS).within(0, 0, 0)), ["Depot"])


class RandomTest(unittest.TestCase):
    def test_against_definition(self):
        rng = random.Random(20)
        places = [Place(rng.randrange(400), rng.randrange(400), f"p{n}") for n in range(120)]
        index = Index(places)
        for _ in range(40):
            x, y = rng.randrange(-100, 500), rng.randrange(-100, 500)
            every = sorted((Hit((p.x - x) ** 2 + (p.y - y) ** 2, p) for p in places), key=lambda h: (h[0], h[1].name))
            self.assertEqual(index.nearest(x, y, 6), every[:6])
            self.assertEqual(index.within(x, y, 60), [hit for hit in every if hit.squared <= 3600])


class PlacesTest(unittest.TestCase):
    def test_there_and_back(self):
        self.assertEqual(load(dump(STOPS)), STOPS)
        self.assertEqual(load(["# stops\n", "\n", "1 2 North gate\n"]), [Place(1, 2, "North gate")])


if __name__ == "__main__":
    unittest.main()
