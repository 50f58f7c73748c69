"""Plots: numbers in, a PNG out. matplotlib is imported only while drawing."""
