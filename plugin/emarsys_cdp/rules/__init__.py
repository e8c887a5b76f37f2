"""Rules: sequences of calls of one person that have effects in Emarsys. Deciding only: pure, no I/O, no clock."""
