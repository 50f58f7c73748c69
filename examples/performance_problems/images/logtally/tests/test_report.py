import os
import subprocess
import sys
import tempfile
import unittest

from logtally.lines import Entry, read_line
from logtally.report import Row, render, summarize


class LineTest(unittest.TestCase):
    def test_request(self):
        self.assertEqual(read_line("10:00 GET /a?x=1?y 200 512 7\n"), Entry("/a", 200, 512, 7))

    def test_malformed(self):
        for line in (
            "",
            "10:00 GET /a 200 512",
            "10:00 GET /a 200 512 7 8",
            "10:00 GET /a ok 512 7",
            "t GET / 200 -1 7",
        ):
            self.assertIsNone(read_line(line), line)


class ReportTest(unittest.TestCase):
    def setUp(self):
        file, self.path = tempfile.mkstemp(suffix=".log")
        os.close(file)
        self.addCleanup(os.remove, self.path)

    def log(self, *lines):
        with open(self.path, "w", encoding="utf-8") as log:
            log.writelines(line + "\n" for line in lines)
        return summarize(self.path)

    def test_empty(self):
        self.assertEqual(self.log(), ([], 0))

    def test_sums(self):
        report = self.log(
            "1 GET /b 200 10 5", "2 GET /a 404 20 6", "3 POST /b?q 500 1 90", "4 GET /a 399 2 8", "5 GET /a 200 0 0"
        )
        self.assertEqual(report.rows, [Row("/a", 3, 1, 22, 8), Row("/b", 2, 1, 11, 90)])

    def test_equal_counts_by_name(self):
        report = self.log("1 GET /z 200 1 1", "1 GET /y 200 1 1", "1 GET /x 200 1 1")
        self.assertEqual([row.endpoint for row in report.rows], ["/x", "/y", "/z"])

    def test_malformed_are_counted(self):
        report = self.log("1 GET /a 200 1 1", "what", "", "   ", "1 GET /a 200 1 -")
        self.assertEqual(report.malformed, 2)
        self.assertEqual(report.rows, [Row("/a", 1, 0, 1, 1)])

    def test_percentile_by_nearest_rank(self):
        for count, expected in ((1, 1), (2, 2), (19, 19), (20, 19), (21, 20), (40, 38), (100, 95)):
            report = self.log(*(f"1 GET /a 200 1 {n}" for n in range(count, 0, -1)))
            self.assertEqual(report.rows[0].p95, expected, count)

    def test_bytes_that_are_no_text(self):
        with open(self.path, "wb") as log:
            log.write(b"1 GET /\xff 200 1 1\n1 GET /a 200 1 1")
        self.assertEqual([row.endpoint for row in summarize(self.path).rows], ["/a", "/\ufffd"])

    def test_the_log_may_grow(self):
        self.log("1 GET /a 200 1 1")
        with open(self.path, "a", encoding="utf-8") as log:
            log.write("1 GET /a 200 1 3\n")
        self.assertEqual(summarize(self.path).rows, [Row("/a", 2, 0, 2, 3)])

    def test_command(self):
        report = self.log("1 GET /long/path 200 1 1", "x")
        done = subprocess.run([sys.executable, "-m", "logtally", self.path], capture_output=True, text=True, check=True)
        self.assertEqual(done.stdout.splitlines(), render(report))
        self.assertEqual(done.stdout.splitlines()[-1], "1 malformed lines")


if __name__ == "__main__":
    unittest.main()
