"""All SQL of the SAM. Every row that carries a MAC is checked as it is read and sealed as it is written."""

from services.sam.store.authenticators import AuthenticatorStore
from services.sam.store.authorizations import AuthorizationStore, Bound
from services.sam.store.contexts import ContextStore, Decided
from services.sam.store.credentials import CredentialStore
from services.sam.store.signers import SignerStore
from services.sam.store.tokens import TokenStore

__all__ = ["Bound", "Decided", "Store"]


class Store(TokenStore, SignerStore, CredentialStore, AuthorizationStore, AuthenticatorStore, ContextStore):
    """The whole of it, on one pool and under one seal."""
