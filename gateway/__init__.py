"""The gateway: the request path of a capture, up to its exact answer."""
