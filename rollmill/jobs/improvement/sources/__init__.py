"""The kinds of data sources that `--feed` takes, one module for each."""
