"""Prefect blocks: addresses of servers, services, clusters and stores, and their secrets."""
