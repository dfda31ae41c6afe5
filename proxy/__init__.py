"""Weir, a unified LLM proxy: LiteLLM translates, Weir owns the life of the stream. README.md here is the floor plan."""
