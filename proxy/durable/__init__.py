"""Streams that outlive their connection and their replica: nothing is shown that is not in their log."""
