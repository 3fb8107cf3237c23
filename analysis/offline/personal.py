"""Personal data in a text: e-mail addresses, telephone numbers, card numbers, bank accounts.

Every pattern has bounded repeats, so time is linear in the text.
"""

import re

from analysis.offline.words import bounded

_EMAIL = re.compile(
    r"(?<=[\w.%+-])@[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){0,4}\.[a-z]{2,24}\b", re.IGNORECASE
)

_CARD = re.compile(
    r"(?<![\w-])(?:[2-6]\d{12,18}"
    r"|[2-6]\d{3}([ -])\d{4}\1\d{4}\1\d{1,7}"
    r"|3\d{3}([ -])\d{6}\2\d{4,5})(?![\w-])"
)

_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}", re.IGNORECASE)
_IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AT": 20, "BE": 16, "BG": 22, "BR": 29, "CH": 21, "CY": 28, "CZ": 24,
    "DE": 22, "DK": 18, "EE": 20, "ES": 24, "FI": 18, "FR": 27, "GB": 22, "GR": 27, "HR": 21,
    "HU": 28, "IE": 22, "IL": 23, "IS": 26, "IT": 27, "LI": 21, "LT": 20, "LU": 20, "LV": 21,
    "MC": 27, "MT": 31, "NL": 18, "NO": 15, "PL": 28, "PT": 25, "RO": 24, "SA": 24, "SE": 24,
    "SI": 19, "SK": 24, "TR": 26, "UA": 29,
}  # fmt: skip
"""Characters of an account by country: the IBAN registry of ISO 13616; the larger countries."""

_PHONE = re.compile(
    r"(?<![\w.,/-])(?:"
    r"\+\d{1,3}(?:[ .()/-]{0,2}\d){6,14}"
    r"|\(\d{2,5}\) ?\d{3,4}[ .-]?\d{3,4}"
    r"|\d{3}[ .-]\d{3}[ .-]\d{4}"
    r"|0\d{2,4}[ /-]\d{5,8}"
    r")(?![\w-])"
)
_DIGITS = re.compile(r"(?<![\w.,/$€£-])\d{7,15}(?![\w-])")
_CALLING = re.compile(
    r"\b(?:phone|call|cell|mobile|telephone|tel|whatsapp|text me|reach me)\b", re.IGNORECASE
)


def is_card(digits: str) -> bool:
    """Tell whether the last digit is the check digit of the others: Luhn, ISO/IEC 7812-1."""
    doubled = (int(digit) * (1 + at % 2) for at, digit in enumerate(reversed(digits)))
    return sum(value - 9 * (value > 9) for value in doubled) % 10 == 0


def is_iban(text: str) -> bool:
    """Tell whether a text begins with an account number whose check digits hold: ISO 13616."""
    whole = text.replace(" ", "").upper()
    length = _IBAN_LENGTHS.get(whole[:2])
    if length is None or len(whole) < length:
        return False
    account = whole[:length]
    return int("".join(str(int(sign, 36)) for sign in account[4:] + account[:4])) % 97 == 1


def has_personal_data(text: str) -> bool:
    """Tell whether a text holds one of them. Whose it is cannot be told."""
    text = bounded(text)
    return (
        _EMAIL.search(text) is not None
        or _PHONE.search(text) is not None
        or any(is_card(re.sub(r"\D", "", found.group())) for found in _CARD.finditer(text))
        or any(is_iban(found.group()) for found in _IBAN.finditer(text))
        or (_DIGITS.search(text) is not None and _CALLING.search(text) is not None)
    )
