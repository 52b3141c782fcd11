"""The compose file and the Kubernetes manifests, written from the topology table."""
