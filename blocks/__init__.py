"""Prefect blocks: where outside things are, and the secrets to them."""
