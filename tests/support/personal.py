"""Made-up personal data: valid numbers that are nobody's, and sentences that hold them."""

import random
import string
from collections.abc import Callable

import phonenumbers
import stdnum.at.uid
import stdnum.iban
import stdnum.luhn
from stdnum.iso7064 import mod_11_10

from agents.supervisor.pii_engine import REGIONS


def digits(rng: random.Random, count: int) -> str:
    return "".join(rng.choices(string.digits, k=count))


def spaced(text: str, size: int, blank: str = " ") -> str:
    return blank.join(text[i : i + size] for i in range(0, len(text), size))


def email(rng: random.Random) -> str:
    name = rng.choice(["anna.maier", "j_smith", "o'neill", "info+shop", "müller", "K.Weber99", "x"])
    return f"{name}@{rng.choice(['example.at', 'mail.example.co.uk', 'bücher.example.de', 'EXAMPLE.COM'])}"


def phone(rng: random.Random) -> str:
    region = rng.choice(REGIONS)
    kind = rng.choice([phonenumbers.PhoneNumberType.MOBILE, phonenumbers.PhoneNumberType.FIXED_LINE])
    number = phonenumbers.example_number_for_type(region, kind)
    assert number is not None
    assert number.national_number is not None
    number.national_number = number.national_number // 10000 * 10000 + rng.randrange(10000)
    layout = rng.choice(
        [
            phonenumbers.PhoneNumberFormat.E164,
            phonenumbers.PhoneNumberFormat.INTERNATIONAL,
            phonenumbers.PhoneNumberFormat.NATIONAL,
        ]
    )
    return str(phonenumbers.format_number(number, layout))


def iban(rng: random.Random) -> str:
    country, count = rng.choice([("DE", 18), ("AT", 16), ("CH", 17), ("GB", 14), ("FR", 23), ("IT", 22)])
    account = digits(rng, count)
    if country == "GB":
        account = "WEST" + account
    elif country == "IT":
        account = "X" + account
    number = f"{country}{stdnum.iban.calc_check_digits(f'{country}00{account}')}{account}"
    return rng.choice([number, spaced(number, 4), number.lower()])


def card(rng: random.Random) -> str:
    prefix, length = rng.choice([("4", 16), ("51", 16), ("2223", 16), ("34", 15), ("6011", 16)])
    number = prefix + digits(rng, length - len(prefix) - 1)
    number += stdnum.luhn.calc_check_digit(number)
    return rng.choice([number, spaced(number, 4), spaced(number, 4, "-")])


def vat_id(rng: random.Random) -> str:
    country = rng.choice(["DE", "AT", "IT", "FR"])
    if country == "DE":
        number = str(rng.randrange(10_000_000, 99_999_999))
        number += mod_11_10.calc_check_digit(number)
        return rng.choice([f"DE{number}", f"DE {spaced(number, 3)}"])
    if country == "AT":
        number = digits(rng, 7)
        return f"ATU{number}{stdnum.at.uid.calc_check_digit('U' + number)}"
    if country == "IT":
        number = f"{digits(rng, 7)}015"
        return f"IT{number}{stdnum.luhn.calc_check_digit(number)}"
    siren = digits(rng, 8)
    siren += stdnum.luhn.calc_check_digit(siren)
    return f"FR{int(siren + '12') % 97:02d}{siren}"


MAKERS: dict[str, Callable[[random.Random], str]] = {
    "EMAIL": email,
    "PHONE": phone,
    "IBAN": iban,
    "CARD": card,
    "VAT_ID": vat_id,
}
SENTENCES = {
    "EMAIL": [
        "Please write to {} tomorrow.",
        "My address is {}, thanks!",
        "Bitte die Rechnung an {} senden.",
        "Meine Mail: {}",
        "({})",
    ],
    "PHONE": [
        "Call me on {} after 5 pm.",
        "You can reach me at {}.",
        "Bitte um Rückruf unter {}, danke.",
        "Tel.: {} (Büro)",
        "{} ist meine Handynummer",
    ],
    "IBAN": [
        "Please refund to {} this week.",
        "my account is {}",
        "Meine IBAN lautet {}.",
        "Bitte auf {} überweisen, danke",
        "IBAN:{}",
    ],
    "CARD": [
        "I paid with card {} yesterday.",
        "Visa {}, valid 12/27",
        "Meine Kreditkarte {} wurde belastet.",
        "Karte: {}",
        "{} funktioniert nicht",
    ],
    "VAT_ID": [
        "Our VAT number is {}.",
        "Please add {} to the invoice",
        "Unsere USt-IdNr. {} fehlt.",
        "UID: {}",
        "Firma Muster, {}, Innsbruck",
    ],
}
