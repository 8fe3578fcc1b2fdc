"""The admission chain: what is added to an object and what is refused, between decoding and the datastore."""
