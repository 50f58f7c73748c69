"""The command: python3 -m logtally LOG"""

import sys

from logtally.report import render, summarize

if len(sys.argv) != 2:
    sys.exit("usage: python3 -m logtally LOG")
print(*render(summarize(sys.argv[1])), sep="\n")
