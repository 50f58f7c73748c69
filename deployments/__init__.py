"""What turns the flows into deployments: a desk's processes, registration, automations."""
