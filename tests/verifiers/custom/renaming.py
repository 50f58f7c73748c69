"""A function under another name."""

from functools import partial

from functions import value

stricter = partial(value)
