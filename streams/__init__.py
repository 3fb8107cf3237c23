"""The workers: thin Faust agents around pure logic."""
