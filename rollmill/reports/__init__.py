"""Reports: pictures and pages of rollouts."""
