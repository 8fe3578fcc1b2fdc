"""Packet rules as values: written as text, compared, followed, applied. Knows nothing of Kubernetes."""
