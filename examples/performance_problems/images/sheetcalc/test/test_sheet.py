from unittest import TestCase, main

from sheetcalc import CycleError, FormulaError, Sheet
from sheetcalc.cells import name_of, position, rectangle


def sheet(**cells):
    made = Sheet()
    for name, content in cells.items():
        made.set(name, content)
    return made


class Values(TestCase):
    def check(self, formula, expected, **cells):
        self.assertEqual(sheet(**cells, Z9=formula).value("Z9"), expected, formula)

    def test_arithmetic(self):
        self.check("=1+2*3-4", 3)
        self.check("=(1+2)*(3-4)", -3)
        self.check("=10-3-2", 5)
        self.check("=--2*-3", -6)
        self.check("= 7 ", 7)

    def test_cells(self):
        self.check("=A1*A1-B2", 21, A1=5, B2=4)
        self.check("=A1+C3", 2, A1="=C3+2")

    def test_functions(self):
        cells = {"A1": 4, "B1": -7, "A2": "=A1+1"}
        self.check("=SUM(A1:B2)", 2, **cells)
        self.check("=SUM(B2:A1)*2", 4, **cells)
        self.check("=MAX(A1:B2)+MIN(A1:B2)", -2, **cells)
        self.check("=COUNT(A1:B2)", 3, **cells)

    def test_diamond(self):
        self.check("=B1+C1", 10, A1=2, B1="=A1*2", C1="=A1*3")

    def test_all_values(self):
        self.assertEqual(sheet(A2="=A1", A1=3).values(), {"A2": 3, "A1": 3})
        self.assertEqual(sheet().values(), {})


class Changes(TestCase):
    def test_a_changed_number_is_seen_everywhere(self):
        one = sheet(A1=1, B1="=A1+1", C1="=B1+1", D1="=SUM(A1:C1)")
        self.assertEqual(one.value("D1"), 6)
        one.set("A1", 10)
        self.assertEqual(one.value("D1"), 33)
        self.assertEqual(one.value("B1"), 11)

    def test_a_changed_formula(self):
        one = sheet(A1=1, B1="=A1", C1="=B1")
        self.assertEqual(one.value("C1"), 1)
        one.set("B1", "=A1+5")
        self.assertEqual(one.value("C1"), 6)

    def test_cleared(self):
        one = sheet(A1=4, B1="=A1+COUNT(A1:A1)")
        self.assertEqual(one.value("B1"), 5)
        one.clear("A1")
        one.clear("A1")
        self.assertEqual(one.value("B1"), 0)
        self.assertEqual(list(one.values()), ["B1"])

    def test_a_cycle_that_goes(self):
        one = sheet(A1="=B1", B1="=A1")
        with self.assertRaises(CycleError):
            one.value("A1")
        one.set("B1", 2)
        self.assertEqual(one.value("A1"), 2)


class Mistakes(TestCase):
    def test_cycles(self):
        with self.assertRaisesRegex(CycleError, "A1 needs B1 needs A1"):
            sheet(A1="=B1", B1="=A1+1").value("A1")
        with self.assertRaisesRegex(CycleError, "B1 needs B1"):
            sheet(A1="=B1", B1="=SUM(B1:C2)").value("A1")

    def test_no_formula(self):
        for text in ("=", "=1+", "=(1", "=1)", "=A0", "=SUM(A1)", "=SUM A1:A2", "=1 2", "=a1", "=1/2"):
            with self.subTest(text), self.assertRaises(FormulaError):
                sheet(A1=text).value("A1")

    def test_only_when_asked(self):
        self.assertEqual(sheet(A1="=oh no", B1=2).value("B1"), 2)

    def test_contents(self):
        for content, error in (("1", ValueError), (1.5, TypeError), (None, TypeError)):
            with self.assertRaises(error):
                sheet(A1=content)
        with self.assertRaises(ValueError):
            sheet(A01=1)


class Names(TestCase):
    def test_there_and_back(self):
        for name, place in (("A1", (1, 1)), ("Z20", (26, 20)), ("AA3", (27, 3)), ("AZ1", (52, 1)), ("BA1", (53, 1))):
            self.assertEqual(position(name), place)
            self.assertEqual(name_of(*place), name)
        self.assertEqual(rectangle("B2", "A1"), ["A1", "B1", "A2", "B2"])


if __name__ == "__main__":
    main()
