"""The program that judges code inside a sandbox: modules of the standard library alone, for Python 3.9 and later.

`rollmill.environments.code.checking` sends their source; nothing here is called outside.
"""
