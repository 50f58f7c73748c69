"""Stands in for vLLM where a test needs a server that fails on cue: same command line, scripted behaviour.

`--learned SCRIPT` is the behaviour of a model that was trained and merged.
"""

import sys

from rollmill.serving.scripted import main

if __name__ == "__main__":
    if "--learned" in sys.argv:
        place = sys.argv.index("--learned")
        learned = sys.argv[place + 1]
        del sys.argv[place : place + 2]
        if "/merged" in sys.argv[sys.argv.index("--model") + 1]:
            sys.argv[sys.argv.index("--script") + 1] = learned
    main()
