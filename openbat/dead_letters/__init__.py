"""`openbat dead-letters`: what could not be processed, to look at, replay or drop."""
