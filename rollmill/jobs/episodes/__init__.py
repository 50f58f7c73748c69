"""Episodes: collected in environments, filtered by success, written as training rows."""
