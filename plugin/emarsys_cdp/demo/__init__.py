"""The command `demo`: a day of calls through the real service, with nothing to set up and nothing left behind."""
