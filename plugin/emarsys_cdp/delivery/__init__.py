"""Delivery by ourselves: whose row is whose, what has been overtaken, one request per contact, one outcome per row."""
