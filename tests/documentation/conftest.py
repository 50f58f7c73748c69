from tests.flows.conftest import prefect_environment, stand_in

__all__ = ["prefect_environment", "stand_in"]
