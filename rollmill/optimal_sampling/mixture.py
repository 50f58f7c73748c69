"""Public names of the mixture of two distributions: see `rollmill.jobs.optimal_sampling.mixture`."""

from rollmill.jobs.optimal_sampling.mixture import TokenDiagnostics, log_mixture, token_diagnostics

__all__ = ["TokenDiagnostics", "log_mixture", "token_diagnostics"]
