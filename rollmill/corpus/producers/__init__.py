"""Producers: the forms in which other tools write their rollouts, a file each."""
