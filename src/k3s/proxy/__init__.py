"""Services and their endpoints as packet rules of this node (kube-proxy)."""
