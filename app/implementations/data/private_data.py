"""What should not be trained on: secrets and personal data, found by libraries and never shown in full.

Personal data: phonenumbers (Google's library for them) and python-stdnum (check digits of card and account
numbers). presidio's recognisers are patterns, check digits and phonenumbers too, but cannot be imported without
spaCy, which imports torch wherever that is installed: neither fits beside a web process.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator

from app.implementations.data.near_duplicates import data_extra

Found = tuple[str, str]  # what it is, and the thing itself, masked
Finder = Callable[[str], Iterator[Found]]

# They take prose for secrets ("password: at least eight characters"), or any number for an address.
_TOO_EAGER = frozenset({"KeywordDetector", "Base64HighEntropyString", "HexHighEntropyString", "IPPublicDetector"})
_EMAIL = re.compile(r"\b[\w.+-]{1,64}@((?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24})\b")
# RFC 2606 keeps these for examples; and addresses of an office are nobody's own.
_EXAMPLE = re.compile(r"(?:^|\.)(?:example(?:\.\w+)?|test|invalid|localhost)$")
_OFFICE = re.compile(r"(?:admin|contact|hello|help|info|mail|no-?reply|office|sales|service|support|team)@")
_LONG_NUMBER = re.compile(r"(?<![\w.])[2-6]\d(?:[ -]?\d){11,17}(?![\w]|[.,]\d)")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:])(?:[0-9A-Fa-f]{0,4}:){3,7}[0-9A-Fa-f]{1,4}(?![\w:])")
_FEWEST_DIGITS = 7  # of a phone number


def secret_finder() -> Finder:
    """API keys, tokens, private keys, passwords in URLs: detect-secrets' plugins, which ask no network here."""
    with data_extra("secrets"):
        from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class

    kinds = sorted(get_mapping_from_secret_type_to_class().items())
    detectors = [(kind, made()) for kind, made in kinds if made.__name__ not in _TOO_EAGER]

    def find(text: str) -> Iterator[Found]:
        for kind, detector in detectors:
            if found := list(
                detector.analyze_string(text)
            ):  # some say only the kind's prefix: the longest tells most
                yield kind, masked(max(found, key=len))

    return find


def personal_data_finder() -> Finder:
    """E-mail addresses, phone numbers with their country's code, card and account numbers, public IP addresses."""
    with data_extra("personal data"):
        import phonenumbers
        from stdnum import iban, luhn

    def numbers(text: str) -> Iterator[Found]:
        cards = [match[0] for match in _LONG_NUMBER.finditer(text) if luhn.is_valid(re.sub(r"\D", "", match[0]))]
        yield from (("card number", masked(card)) for card in cards)
        yield from (("IBAN", masked(m[0])) for m in _IBAN.finditer(text) if iban.is_valid(m[0]))
        if "+" in text:
            for match in phonenumbers.PhoneNumberMatcher(text, None):
                yield "phone number", masked(match.raw_string)
        for pattern in (_IPV4, _IPV6):
            yield from (("IP address", masked(m[0])) for m in pattern.finditer(text) if _is_public(m[0]))

    def find(text: str) -> Iterator[Found]:
        if "@" in text:
            yield from (("e-mail address", masked(m[0])) for m in _EMAIL.finditer(text) if _is_somebodys(m))
        if sum(map(str.isdecimal, text)) >= _FEWEST_DIGITS or text.count(":") > 2:
            yield from numbers(text)

    return find


def masked(secret: str) -> str:
    """Enough to find it again in the row, too little to use it."""
    shown = min(4, len(secret) // 4)
    return secret[:shown] + "…"


def _is_somebodys(address: re.Match[str]) -> bool:
    return not _OFFICE.match(address[0].lower()) and not _EXAMPLE.search(address[1].lower())


def _is_public(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False
