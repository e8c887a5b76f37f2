"""The built-in steps: implementations of the hooks, one module a step. Pure."""
