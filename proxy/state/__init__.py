"""What replicas share, in Redis or in the process. Nothing outside this package imports redis."""
