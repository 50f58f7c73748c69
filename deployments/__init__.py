"""What turns the flows into deployments: the server and worker of one machine, registration, automations."""
