"""k3s: a lightweight Kubernetes distribution in one executable."""

# Kubernetes level of the API + our own release on it.
VERSION = "v1.36.2+k3s1"

# The commit that an executable was built from; a build writes it here.
COMMIT = ""
