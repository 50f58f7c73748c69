"""Turns a language model's own attempts into training data, and the data into a better model."""
