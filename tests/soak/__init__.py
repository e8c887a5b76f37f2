"""Many calls, and everything that can break breaking: `python -m tests.soak`. A small run is part of the tests."""
