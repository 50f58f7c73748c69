"""Statistics: rates and summaries."""
