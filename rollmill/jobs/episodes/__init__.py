"""Episodes of agents in environments: collected, filtered by success, written as training rows."""
