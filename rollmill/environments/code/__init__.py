"""Programming problems: code and tests that are written against each other, judged by tests that neither sees."""
