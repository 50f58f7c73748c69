"""Search: one agent splits a question, one searches a corpus, one answers."""
