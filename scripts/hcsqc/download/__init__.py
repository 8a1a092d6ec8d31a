"""Archives of a screen: what is to be fetched, fetching, verifying and unpacking."""
