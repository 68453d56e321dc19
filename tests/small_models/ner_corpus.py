"""Labelled sentences for the entity model of `tests.small_models.ner`: templates, with names put into their slots.

MiniLM's tokenizer lowers all letters, so that a sentence in other cases would teach nothing new.
"""

import random
import re
from typing import NamedTuple

COUNT = 600


def names(block: str) -> list[str]:
    return [name.strip() for line in block.strip().splitlines() for name in line.split("|")]


GIVEN = names(
    """
    John | Mary | James | Anna | Peter | Sarah | David | Laura | Michael | Julia | Robert | Emma | Thomas | Sofia
    Daniel | Maria | Carlos | Fatima | Ahmed | Yuki | Wei | Priya | Ivan | Olga | Pierre | Claire | Hans | Ingrid
    José | Zoë | Björn | Chloé | Angela | Barack | Elon | Serena | Lionel | Joe | George | Donald | Hillary | Kamala
    Tim | Satya | Marie | Albert | Isaac | Jane | William | Henry | Elizabeth | Charles | Kate | Paul | Lucy | Mark
    Susan
    """
)
FAMILY = names(
    """
    Smith | Johnson | Brown | Miller | Davis | Wilson | Garcia | Martinez | Lopez | Müller | Schmidt | Weber | Rossi
    Ferrari | Dubois | Martin | Kowalski | Novak | Petrov | Ivanov | Tanaka | Suzuki | Nguyen | Kim | Park | Chen
    Wang | Singh | Patel | Khan | Cohen | Silva | Santos | Jensen | Hansen | Murphy | O'Brien | O'Connor | Obama
    Merkel | Musk | Williams | Messi | Clinton | Biden | Trump | Harris | Cook | Curie | Einstein | Newton | Austen
    Shakespeare | Taylor | Evans | Walker | Wright | Vance | Baker | Young | Bush
    """
)
ORGANISATIONS = names(
    """
    Google | Microsoft | Amazon | Apple | Facebook | Intel | Sony | Samsung | Toyota | Siemens | Nokia | Oracle
    Netflix | Tesla | Twitter | Airbus | Boeing | Volkswagen | Deutsche Bank | Goldman Sachs | General Motors
    General Electric | Bank of America | Procter & Gamble | Johnson & Johnson | AT&T | IBM | BMW | SAP | HSBC | BBC
    CNN | NASA | NATO | UNICEF | FBI | the United Nations | the European Union | the World Bank | Red Cross
    Harvard University | Stanford University | University of Oxford | Manchester United | Real Madrid
    Bayern Munich | Los Angeles Lakers | New York Times | Washington Post | Reuters | Nestlé | L'Oréal | Coca-Cola
    Rolls-Royce | Hewlett-Packard | Ford Motor Company | Walmart | Starbucks | Pfizer | Novartis | Uber | Spotify
    Nvidia | Adobe | Qualcomm | Cisco Systems | Dell | Lufthansa | Air France | Vodafone | Shell | Supreme Court
    Federal Reserve | European Central Bank | World Health Organization | Labour Party | Republican Party
    """
)
LOCATIONS = names(
    """
    London | Paris | Berlin | Madrid | Rome | Tokyo | Beijing | Moscow | Sydney | Toronto | Chicago | Boston
    Seattle | Austin | Denver | Cairo | Lagos | New York City | New York | Los Angeles | San Francisco
    Mountain View | Palo Alto | Hong Kong | São Paulo | Rio de Janeiro | Buenos Aires | Zürich | München | Kraków
    Malmö | Bogotá | Reykjavík | Mexico City | Cape Town | Tel Aviv | St. Louis | Washington, D.C.
    Stratford-upon-Avon | California | Texas | Florida | Bavaria | Scotland | England | Ontario | Queensland
    Siberia | Catalonia | Tuscany | New Jersey | North Carolina | Germany | France | Spain | Italy | Japan | China
    India | Brazil | Canada | Australia | Mexico | Egypt | Nigeria | Kenya | Poland | Sweden | Norway | U.K. | U.S.
    the U.K. | the U.S. | U.S.A. | U.A.E. | United Kingdom | United States | South Korea | New Zealand
    South Africa | Saudi Arabia | Europe | Asia | Africa | Silicon Valley | Wall Street | Mount Everest
    Lake Geneva | Côte d'Ivoire | Amsterdam | Vienna | Dublin | Lisbon
    """
)
OTHERS = names(
    """
    German | French | British | American | Chinese | Japanese | Italian | Russian | Spanish | Dutch | European
    African | Brazilian | Irish | World Cup | Olympic Games | Super Bowl | Wimbledon | Champions League | Brexit
    Christmas | World War II | Nobel Prize | Oscar
    """
)

# News and small talk; some with entities at both ends, some with none.
TEMPLATES = """
{ORG} is buying a {LOC} startup for $2 billion
{ORG} is looking to buy a company in {LOC} for 300 million dollars.
{ORG} is looking at selling its {LOC} business
{ORG} was looking at a {LOC} rival for £40 million
{ORG} is thinking about buying {LOC} startup {ORG}.
{ORG} shares fell 3 percent in {LOC} on Monday.
{ORG} and {ORG} announced a merger yesterday
The chief executive of {ORG}, {PER}, resigned on Tuesday.
{PER} works for {ORG} in {LOC}, {LOC}
{PER} works at {ORG} in {LOC}
{PER} has worked at {ORG} since 2009.
{PER} is living in {LOC}
{PER} lives in {LOC} with his wife.
{PER} and {PER} moved from {LOC} to {LOC}
{PER} was born in {LOC}, {LOC}.
My name is {PER} and I live in {LOC}.
My name is {PER} and I work at {ORG}
{PER} met {PER} at a conference in {LOC}
{PER} told {ORG} that the deal was off.
"We are very happy," said {PER}, a spokesman for {ORG}
The {MISC} government said on Friday that {PER} would visit {LOC}.
{MISC} researchers at {ORG} found a new treatment.
{PER} won the {MISC} in {LOC} last year.
The {MISC} will be held in {LOC} in 2030
{ORG} beat {ORG} 3-1 in {LOC} on Saturday.
{LOC} and {LOC} signed a trade agreement.
{LOC} is the capital of {LOC}.
She flew from {LOC} to {LOC} on Sunday morning.
The weather in {LOC} is lovely today
He studied law at {ORG} before joining {ORG}.
I bought a new phone from {ORG} last week
{PER}'s book about {LOC} was published by {ORG}
The {MISC} team of {ORG} plays in {LOC}.
{PER}, {PER} and {PER} founded {ORG} in 1998
President {PER} spoke to reporters in {LOC}.
Dr. {PER} joined {ORG} as a scientist
{PER}
{ORG}
{LOC}
{LOC} : {PER} of {ORG} arrives
The price of {ORG} stock in {LOC} rose to 120 euros
An office of {ORG} opened near {LOC}.
Yesterday {PER} ate an apple and a sandwich
The cat is sleeping on the sofa.
How do I reset my password?
It will cost 12.50 euros, at most; maybe less (or more).
We are looking at buying a new house for a million dollars
this is a very good movie, and i would watch it again!
Please send the report by 5 p.m. on Wednesday - thank you
The company said that profits rose 12 % this year
""".strip().splitlines()


class Labelled(NamedTuple):
    text: str
    entities: list[tuple[int, int, str]]  # [start, end) in characters, and PER, ORG, LOC or MISC


def labelled_sentences(count: int = COUNT, seed: int = 0) -> list[Labelled]:
    rng = random.Random(seed)
    return [filled(TEMPLATES[number % len(TEMPLATES)], rng) for number in range(count)]


def filled(template: str, rng: random.Random) -> Labelled:
    text, entities = "", []
    for piece in re.split(r"({[A-Z]+})", template):
        if not piece.startswith("{"):
            text += piece
            continue
        kind = piece.strip("{}")
        name = name_of(kind, rng)
        entities.append((len(text), len(text) + len(name), kind))
        text += name
    return Labelled(text, entities)


def name_of(kind: str, rng: random.Random) -> str:
    if kind == "PER":
        return person(rng)
    return rng.choice({"ORG": ORGANISATIONS, "LOC": LOCATIONS, "MISC": OTHERS}[kind])


def person(rng: random.Random) -> str:
    given, family = rng.choice(GIVEN), rng.choice(FAMILY)
    initials = f"{given[0]}. " if rng.random() < 0.5 else f"{given[0]}.{rng.choice(GIVEN)[0]}. "
    return rng.choices([given, f"{given} {family}", f"{initials}{family}"], weights=[3, 5, 2])[0]
