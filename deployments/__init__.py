"""What turns the flows into deployments and commands: one machine's server and worker, registration, `rollmill`."""
