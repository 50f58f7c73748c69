"""HTTP services for sandboxes and grading on other machines."""
