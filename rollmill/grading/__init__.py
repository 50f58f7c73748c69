"""Grades changes to repositories: allowed files, passing tests, correct output, measured speedup."""
