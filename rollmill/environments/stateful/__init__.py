"""Small worlds with a state: an agent plans, another acts, and the state says how far they have come."""
