"""Names of files that rooms below the one that writes them have to know."""

MANIFEST = "manifest.json"
"""In a run directory: what the run is."""
