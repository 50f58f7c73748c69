"""Thin Prefect tasks: each calls one function of the domain and logs one line.

What is done is decided by the journal, not by Prefect's cache (`NO_CACHE`): a cached result may name a file that is no
longer there, while the journal is the file.
"""
