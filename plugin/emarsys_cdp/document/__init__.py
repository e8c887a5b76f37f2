"""The document of a space: data maps, identity and rules as people write them, checked and compiled."""
