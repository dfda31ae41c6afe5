"""How streams are written down for a client."""
