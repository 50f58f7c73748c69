"""The corpus: rollouts of one or many files, as a table of scalars and a way back to each record."""
