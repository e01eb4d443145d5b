"""The wire: each provider is a record and four pure functions, in a file of its own."""
