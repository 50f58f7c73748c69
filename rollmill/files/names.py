"""Names of files that are used below the package that writes them."""

MANIFEST = "manifest.json"
"""The manifest in a run directory."""
