"""Emarsys: fields, requests, signing. Everything but the client is pure."""
