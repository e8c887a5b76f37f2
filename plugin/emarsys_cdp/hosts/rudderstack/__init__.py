"""RudderStack: processor and router transform, plain and compacted."""
