"""Configuration: parameters, command lines, forms, files of settings."""
