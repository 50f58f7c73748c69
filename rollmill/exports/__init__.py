"""Exports: kept rollouts, written as files for trainers and other tools."""
