"""Mathematics: one agent reasons, another computes, and they have to agree."""
