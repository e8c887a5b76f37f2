"""Eight processes on fifty people, killed in every step of the protocol: `python -m tests.crowd`."""
