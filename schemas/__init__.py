"""What travels: over HTTP, through Kafka, in the registry. Imports nothing else of the project."""
