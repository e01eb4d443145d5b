"""tokenkit: know and steer what LLM calls cost, from a notebook."""
