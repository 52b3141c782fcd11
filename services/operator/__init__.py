"""The operator's door: tenants, clients, signers and credentials, over the sealed bus and never over HTTP."""
