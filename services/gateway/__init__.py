"""The partners' door: the API of the Cloud Signature Consortium, v1 and v2, over one model. Holds no secret."""
