"""`openbat status`: what is seen, what is wrong with it, and how it is shown."""
