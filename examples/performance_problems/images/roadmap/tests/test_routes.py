import unittest

from roadmap import Network, NoRouteError, Route, distances, route


def network(*roads, one_way=False):
    made = Network()
    for start, end, length in roads:
        made.add_road(start, end, length, one_way=one_way)
    return made


class RouteTests(unittest.TestCase):
    def test_a_detour_is_shorter(self):
        roads = network(("a", "b", 10), ("a", "c", 2), ("c", "d", 3), ("d", "b", 4))
        self.assertEqual(route(roads, "a", "b"), Route(9, ("a", "c", "d", "b")))

    def test_a_late_improvement_counts(self):
        roads = network(("a", "b", 1), ("a", "c", 5), ("b", "c", 1), ("c", "d", 1), ("a", "d", 7))
        self.assertEqual(route(roads, "a", "d"), Route(3, ("a", "b", "c", "d")))

    def test_there_already(self):
        self.assertEqual(route(network(("a", "b", 1)), "a", "a"), Route(0, ("a",)))

    def test_one_way(self):
        roads = network(("a", "b", 1), ("b", "c", 1), one_way=True)
        self.assertEqual(route(roads, "a", "c").length, 2)
        with self.assertRaises(NoRouteError):
            route(roads, "c", "a")

    def test_unknown_places(self):
        roads = network(("a", "b", 1))
        with self.assertRaises(KeyError):
            route(roads, "z", "a")
        with self.assertRaises(NoRouteError):
            route(roads, "a", "z")

    def test_shortest_of_several_roads(self):
        self.assertEqual(route(network(("a", "b", 5), ("a", "b", 3), ("b", "a", 4)), "a", "b").length, 3)

    def test_equal_routes_have_one_answer(self):
        forward = [("s", "x", 1), ("s", "m", 1), ("s", "b", 1), ("x", "t", 1), ("m", "t", 1), ("b", "t", 1)]
        for roads in (forward, forward[::-1], forward[2:] + forward[:2]):
            self.assertEqual(route(network(*roads), "s", "t"), Route(2, ("s", "b", "t")))

    def test_equal_routes_by_the_stop_before_the_last(self):
        roads = network(("s", "a", 1), ("a", "z", 1), ("s", "y", 1), ("y", "c", 1), ("z", "t", 1), ("c", "t", 1))
        self.assertEqual(route(roads, "s", "t"), Route(3, ("s", "y", "c", "t")))

    def test_roads_have_a_length(self):
        for length in (0, -3):
            with self.assertRaises(ValueError):
                network(("a", "b", length))


class DistanceTests(unittest.TestCase):
    def test_all_that_can_be_reached(self):
        roads = network((1, 2, 7), (2, 3, 1), (1, 3, 9), (5, 6, 1))
        roads.add_place(4)
        self.assertEqual(distances(roads, 1), {1: 0, 2: 7, 3: 8})
        self.assertEqual(distances(roads, 4), {4: 0})
        self.assertEqual(roads.places(), [1, 2, 3, 4, 5, 6])


if __name__ == "__main__":
    unittest.main()
