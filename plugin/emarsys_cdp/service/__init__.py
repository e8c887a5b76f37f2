"""The HTTP service: the front of the stock transformer, the host endpoints, the API and the page."""
