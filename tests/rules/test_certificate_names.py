"""The name in a certificate, in parts that a person can read."""

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from services.authentication import words
from services.authentication.names import NamePart, read_name


def test_every_part_has_its_word_and_none_its_number() -> None:
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "JP"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Acme, Ltd. <x>"),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, "PNOJP-1+2"),
            x509.NameAttribute(NameOID.COMMON_NAME, "山田 花子"),
        ]
    )
    text = name.rfc4514_string()
    assert "2.5.4.5=" in text
    assert [(part.label, part.value) for part in read_name(text)] == [
        ("name_common", "山田 花子"),
        ("name_serial", "PNOJP-1+2"),
        ("name_organization", "Acme, Ltd. <x>"),
        ("name_country", "JP"),
    ]


def test_a_part_without_a_word_keeps_its_number() -> None:
    assert read_name("2.999.1=x,CN=a") == (NamePart(None, "2.999.1", "x"), NamePart("name_common", "2.5.4.3", "a"))


def test_several_values_of_one_part_are_all_shown() -> None:
    assert [part.value for part in read_name("CN=a+2.5.4.5=b,C=JP")] == ["b", "a", "JP"]


@pytest.mark.parametrize("text", ["", "no name", "CN=<script>", "CN", "=x", 'CN="x', "CN=" + "x" * 5000])
def test_what_is_no_name_is_shown_as_it_is(text: str) -> None:
    parts = read_name(text)
    assert len(parts) == 1
    assert parts[0].value in (text, text.removeprefix("CN="))


def test_every_word_is_there_in_every_language() -> None:
    labels = {part.label for part in read_name("CN=a,O=b,OU=c,C=JP,ST=d,L=e,2.5.4.5=f,2.5.4.97=g,2.5.4.4=h,2.5.4.42=i")}
    for texts in words.load().values():
        assert labels <= texts.keys()
