"""Files: rows in, rows out, whole or not at all."""
