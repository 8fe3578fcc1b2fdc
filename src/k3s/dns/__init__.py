"""Cluster DNS inside the agent: names of services and pods from the API, everything else from the host's servers."""
