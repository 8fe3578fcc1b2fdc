"""Group versions that others serve: APIService objects, whether they are available, and the way to them."""
