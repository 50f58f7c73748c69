from tests.flows.conftest import end_prepared, prefect_environment, prepared, stand_in

__all__ = ["end_prepared", "prefect_environment", "prepared", "stand_in"]
