"""A request on its way: who serves it, how it is shaped, and what its reader may do to it."""
