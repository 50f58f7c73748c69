"""Curation: selection of rollouts, and export of training rows."""
