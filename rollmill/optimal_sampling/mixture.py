"""The mixture of two distributions."""

from rollmill.jobs.optimal_sampling.mixture import TokenDiagnostics, log_mixture, token_diagnostics

__all__ = ["TokenDiagnostics", "log_mixture", "token_diagnostics"]
