"""The OAuth 2 authorization server: which partner may use the service, until when."""
