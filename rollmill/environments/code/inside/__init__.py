"""Program that judges code inside a sandbox. It uses the standard library alone and runs on Python 3.9 and later.

`rollmill.environments.code.checking` sends the source of its modules; nothing here is called outside of a sandbox.
"""
