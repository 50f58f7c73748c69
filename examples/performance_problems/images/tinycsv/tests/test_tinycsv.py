import unittest

import tinycsv


class Parsing(unittest.TestCase):
    CASES = {
        "empty": ("", []),
        "one field": ("a", [["a"]]),
        "rows": ("a,b\nc,d\n", [["a", "b"], ["c", "d"]]),
        "no last line end": ("a,b\nc,d", [["a", "b"], ["c", "d"]]),
        "CRLF": ("a,b\r\nc,d\r\n", [["a", "b"], ["c", "d"]]),
        "empty fields": (",\n,,\n", [["", ""], ["", "", ""]]),
        "empty line": ("a\n\nb\n", [["a"], [""], ["b"]]),
        "only a line end": ("\n", [[""]]),
        "comma at the end": ("a,", [["a", ""]]),
        "quoted": ('"a","b"\n', [["a", "b"]]),
        "quoted comma": ('"a,b",c\n', [["a,b", "c"]]),
        "quoted line end": ('"a\nb\r\nc",d\n', [["a\nb\r\nc", "d"]]),
        "doubled quotes": ('"say ""hi""",""""\n', [['say "hi"', '"']]),
        "empty quoted": ('"",""', [["", ""]]),
        "quote in the middle": ('a"b,c""d\n', [['a"b', 'c""d']]),
        "blanks stay": (" a , b \n", [[" a ", " b "]]),
        "single CR": ("a\rb,c\r\n", [["a\rb", "c"]]),
        "CR at the end": ("a\r", [["a\r"]]),
        "letters": ("ä,日本\n", [["ä", "日本"]]),
    }

    def test_cases(self):
        for name, (text, rows) in self.CASES.items():
            with self.subTest(name):
                self.assertEqual(tinycsv.parse(text), rows)

    def test_never_ends(self):
        with self.assertRaises(tinycsv.CSVError) as caught:
            tinycsv.parse('a\nb,"c\nd\n')
        self.assertEqual(caught.exception.line, 2)
        for text in ('"', 'a,"b""', '"a""\n', '"a,""b'):
            with self.subTest(text), self.assertRaisesRegex(tinycsv.CSVError, "never ends"):
                tinycsv.parse(text)

    def test_after_the_closing_quote(self):
        with self.assertRaises(tinycsv.CSVError) as caught:
            tinycsv.parse('"a\nb"c,d\n')
        self.assertEqual(str(caught.exception), "line 1: 'c' after a closing quote")

    def test_CR_after_the_closing_quote(self):
        self.assertEqual(tinycsv.parse('"a"\r\n"b"\r\n'), [["a"], ["b"]])
        with self.assertRaises(tinycsv.CSVError):
            tinycsv.parse('"a"\rb\n')


class Around(unittest.TestCase):
    def test_table(self):
        self.assertEqual(tinycsv.table("x,y\n1,2\n"), [{"x": "1", "y": "2"}])
        self.assertEqual(tinycsv.table(""), [])
        with self.assertRaisesRegex(tinycsv.CSVError, "row 3 has 1 fields, the header 2"):
            tinycsv.table("x,y\n1,2\n3\n")

    def test_there_and_back(self):
        rows = [["a", "b,c", 'd"e'], ["", "\n", "\r\n"], ["\r", " ", '"']]
        for line_end in ("\n", "\r\n"):
            self.assertEqual(tinycsv.parse(tinycsv.format_rows(rows, line_end=line_end)), rows)


if __name__ == "__main__":
    unittest.main()
