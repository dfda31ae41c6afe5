"""A conversation: its turns, the messages they come to, and how much of them a model can take."""
