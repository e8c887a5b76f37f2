"""The outbox: effects of rules that are to be sent, and what became of them."""
