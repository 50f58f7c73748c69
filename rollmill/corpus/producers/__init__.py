"""Producers: one module for each tool whose files of rollouts are read."""
