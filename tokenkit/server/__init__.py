"""The server: a kit behind OpenAI's HTTP API."""
