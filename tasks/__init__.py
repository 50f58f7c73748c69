"""Thin Prefect tasks: each calls one function of the domain and logs one line.

The journal decides what is left to do, not Prefect's cache (`NO_CACHE`): a cached result may name a file that no longer
exists, while the journal is the file.
"""
