"""Workers killed while timers fire: `python -m tests.storm`."""
