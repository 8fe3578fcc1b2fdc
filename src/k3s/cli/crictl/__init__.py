"""`k3s crictl`: a client of the container runtime interface, with the verbs and the output of upstream's."""
