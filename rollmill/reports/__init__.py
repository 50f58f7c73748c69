"""Reports: plots, pages and checks of rollouts."""
