"""Simulations: timelines of calls through the real engine, with times of their own, in a space of their own."""
