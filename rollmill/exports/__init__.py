"""Exports: rollouts that survived the rules, as the files that trainers and other people's tools read."""
