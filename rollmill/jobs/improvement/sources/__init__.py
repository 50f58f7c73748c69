"""What `--feed` takes: one module for each kind of data source."""
