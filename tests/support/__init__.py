"""Real parts for tests: servers, a fixed world, requests in the host's form."""
