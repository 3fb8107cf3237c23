"""Analyzers: what says something of messages and conversations. Each is a module; see protocol."""
