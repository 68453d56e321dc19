"""Sentences with names in them, for tests of entities and their offsets.

Offsets go wrong where bytes, characters and tokens differ: accents that a tokenizer strips, emoji of several code
points, letters that get longer in lower case, unusual spaces, and languages without spaces. The sentences have all of
these, and are the same in every run.
"""
# ruff: noqa: RUF001 - other alphabets are the point

import random
import unicodedata
from collections.abc import Callable

WRITTEN = [
    "Apple is looking at buying U.K. startup for $1 billion",
    "John works at Google in Mountain View, California",
    "j.d. vance is living in New York City",
    "Berlin",
    "U.S.A.",
    "Angela Merkel visited Microsoft in Seattle",
    "Paris, London and New York",
    "In Zürich, José Müller met Zoë Françoise O'Connor-Søndergård.",
    "São Paulo and Kraków are far from Reykjavík",
    "S\u0061\u0303o Paulo, Zu\u0308rich, Malmo\u0308 and Krako\u0301w with combining marks",
    "İstanbul'da Işık Üniversitesi, İzmir'de değil",
    "Dr. J. R. R. Tolkien, Ph.D., wrote in Oxford, U.K.",
    "Procter & Gamble, AT&T and Johnson & Johnson left Washington, D.C.",
    "Jean-Luc Picard of Stratford-upon-Avon drives a Rolls-Royce",
    "L'Oréal's office in Côte d'Ivoire isn't O'Brien’s",
    "🎉 Maria 👩‍👩‍👧‍👦 moved to Tokyo 🇯🇵 with Siemens 🚀",
    "👍🏽Obama👍🏽 in👍🏽Chicago👍🏽",
    "山田太郎は東京のソニーで働いています。",
    "马云在杭州创立了阿里巴巴。",
    "Sony (ソニー) is based in Tokyo (東京), Samsung (삼성) in Seoul (서울).",
    "Владимир Набоков родился в Санкт-Петербурге",
    "Ο Σωκράτης έζησε στην Αθήνα",
    "محمد صلاح يلعب في ليفربول",
    "नरेन्द्र मोदी दिल्ली में हैं",
    "สมชายทำงานที่กรุงเทพฯ",
    "  leading and trailing spaces around Madrid   ",
    "John\tSmith\nworks  at   Google\r\nin\u00a0Mountain\u2003View",
    "zero\u200bwidth: Goo\u200bgle, Mi\u00adcrosoft and \ufeffAmazon",
    "JOHN SMITH WORKS AT IBM IN NEW YORK CITY!",
    "john smith works at ibm in new york city",
    "McDonald's, eBay, iPhone and YouTube in LaTeX",
    '"Mary," said Peter; (Intel), [Nokia] {Oracle} <Dell> «Airbus» „Lufthansa“',
    "@elonmusk #Tesla https://tesla.com/en_US mary.smith@example.com",
    "Google/Apple/Microsoft, Google-Apple, Google+Apple, Google…Apple",
    "ＧＯＯＧＬＥ and ﬁnland and Straße in ½ of Groß-Gerau",
    "Bank of America of the United States of America of the Americas",
    "Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch in Wales",
    "; ".join(["Tim Cook of Apple met Angela Merkel in Berlin, not in Paris"] * 20),
    "[CLS] Google [SEP] London [MASK] Peter [PAD] [UNK]",
    "Nothing is named here.",
    "2024-01-01 12:30 $5,000.00 3.14 %",
]

PEOPLE = ["John", "Mary Smith", "j.d. vance", "José Álvarez", "Zoë", "Anne-Marie O'Neill", "Dr. Li Wei", "Łukasz Żak"]
FIRMS = ["Google", "AT&T", "Deutsche Bank", "L'Oréal", "Procter & Gamble", "ソニー", "Yahoo!", "eBay Inc.", "the BBC"]
PLACES = [
    "London",
    "U.K.",
    "New York City",
    "São Paulo",
    "Côte d'Ivoire",
    "Washington, D.C.",
    "東京",
    "Köln",
    "Tel-Aviv",
]

FRAMES = [
    "{person} works at {firm} in {place}",
    "{firm} is buying a startup in {place} for $3 billion.",
    "{place}: {person} resigns",
    "{person} and {person} left {place} for {place}",
    "Did {firm} hire {person}?!",
    "{firm}, {firm} and {firm}",
    "In {place} it is raining",
    "{person}'s trip from {place}-{place} cost 40€, {person} says",
    "I was told that nothing of this is true, said {person}",
    "{place}",
]


def decomposed(text: str) -> str:
    return unicodedata.normalize("NFD", text)


def spread(text: str) -> str:
    return f"\t{text.replace(' ', '  ')} \n"


def decorated(text: str) -> str:
    return f"🎉{text.replace(' ', ' 👩‍🚀 ', 2)}🇺🇦"


def hyphenated(text: str) -> str:
    return text.replace(" ", "-", 3)


def quoted(text: str) -> str:
    return f"“{text}”…"


def repeated(text: str) -> str:
    """A text of more than the 512 tokens that a BERT takes."""
    return "; ".join([text] * (2_400 // len(text)))


WAYS: list[Callable[[str], str]] = [str, str.upper, str.lower, decomposed, spread, decorated, hyphenated, quoted]


def ner_sentences(count: int = 240, seed: int = 0) -> list[str]:
    """Returns `count` sentences, none of them empty. The ones written by hand come first."""
    rng = random.Random(seed)
    sentences = list(WRITTEN)
    while len(sentences) < count:
        sentences.append(composed(rng, repeat=len(sentences) % 50 == 0))
    return sentences[:count]


def composed(rng: random.Random, *, repeat: bool) -> str:
    sentence = rng.choice(FRAMES)
    for slot, known in (("{person}", PEOPLE), ("{firm}", FIRMS), ("{place}", PLACES)):
        while slot in sentence:
            sentence = sentence.replace(slot, rng.choice(known), 1)
    written = rng.choice(WAYS)(sentence)
    return repeated(written) if repeat else written
