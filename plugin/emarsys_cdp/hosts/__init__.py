"""Hosts: what each of them sends and what it takes as an answer."""
