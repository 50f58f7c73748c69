"""Plots: functions from numbers to PNG files. matplotlib is imported only while drawing."""
