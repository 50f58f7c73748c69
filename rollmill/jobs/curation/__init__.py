"""Curation: which rollouts become training rows, and how these are written."""
