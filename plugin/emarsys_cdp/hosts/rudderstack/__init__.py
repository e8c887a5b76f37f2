"""RudderStack: processor and router transform, plain and compacted; delivery; deletion of users."""

HOST = "rudderstack"
"""Name of this host in spaces and metrics."""
