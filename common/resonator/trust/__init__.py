"""Who is who on the bus: certificates, what they say, and connections that ask for them."""

from resonator.trust.credentials import Credentials
from resonator.trust.party import CertificateInvalid, Party, Role, party_of
from resonator.trust.way import credentials_for

__all__ = [
    "CertificateInvalid",
    "Credentials",
    "Party",
    "Role",
    "credentials_for",
    "party_of",
]
