"""Agent rollouts: attempts of an agent at coding problems, in sandboxes, graded by tests and speed."""
