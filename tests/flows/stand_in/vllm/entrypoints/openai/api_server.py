"""Stands in for vLLM where a test needs a server that fails on cue: same command line, scripted behaviour."""

from rollmill.serving.scripted import main

if __name__ == "__main__":
    main()
