"""A report of a web server's access log."""
