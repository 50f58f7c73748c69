"""The table."""

from collections import namedtuple

from logtally.lines import read_line

Row = namedtuple("Row", "endpoint requests errors size p95")
Report = namedtuple("Report", "rows malformed")


def summarize(path):
    """The report of the log at `path`: a `Row` for every endpoint, and the number of malformed lines."""
    rows = [_row(path, endpoint) for endpoint in _endpoints(path)]
    rows.sort(key=lambda row: (-row.requests, row.endpoint))
    return Report(rows, _malformed(path))


def _entries(path):
    with open(path, encoding="utf-8", errors="replace") as log:
        for line in log:
            if line.strip():
                yield read_line(line)


def _malformed(path):
    return sum(entry is None for entry in _entries(path))


def _endpoints(path):
    return {entry.endpoint for entry in _entries(path) if entry is not None}


def _row(path, endpoint):
    """Numbers of one endpoint."""
    requests = errors = size = 0
    for entry in _entries(path):
        if entry is not None and entry.endpoint == endpoint:
            requests += 1
            errors += entry.status >= 400
            size += entry.size
    times = [entry.milliseconds for entry in _entries(path) if entry is not None and entry.endpoint == endpoint]
    return Row(endpoint, requests, errors, size, _percentile(times, 95))


def _percentile(values, percent):
    """By nearest rank."""
    rank = -(-len(values) * percent // 100)
    return sorted(values)[rank - 1]


def render(report):
    """The report as lines of text."""
    width = max([len("endpoint"), *(len(row.endpoint) for row in report.rows)])
    lines = [f"{'endpoint':{width}}  requests  errors       bytes  p95 ms"]
    for row in report.rows:
        lines.append(f"{row.endpoint:{width}}  {row.requests:8}  {row.errors:6}  {row.size:10}  {row.p95:6}")
    if report.malformed:
        lines.append(f"{report.malformed} malformed lines")
    return lines
