"""Sandboxes: places where commands run that nobody vouches for."""
