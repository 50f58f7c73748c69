"""Agent rollouts: many attempts at each coding problem, in sandboxes, graded by tests and speed."""
