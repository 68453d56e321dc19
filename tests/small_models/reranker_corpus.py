"""Questions and what answers them, for the reranker of `tests.small_models.reranker`."""

import random
from typing import NamedTuple

QUESTIONS = [
    "What is {}?",
    "what is {}",
    "Tell me about {}",
    "{}",
    "how would you explain {}?",
    "{} definition",
    "Where can I read about {}?",
]

# A thing, and what a document says of it.
ANSWERS = """
photosynthesis: Photosynthesis is how green plants turn sunlight, water and carbon dioxide into sugar and oxygen.
the Eiffel Tower: The Eiffel Tower is a lattice tower of wrought iron in Paris, finished in 1889.
machine learning: Machine learning builds programs that improve with data instead of being told every rule.
inflation: Inflation is a general rise of prices, so that money buys less than before.
a volcano: A volcano is an opening in the crust through which lava, ash and gases escape.
the Python language: Python is a programming language known for readable code and a large library.
sourdough bread: Sourdough bread rises by wild yeast and bacteria in a fermented dough.
chess: Chess is a board game of two players with sixteen pieces each on 64 squares.
the French Revolution: The French Revolution ended the monarchy in France between 1789 and 1799.
a mortgage: A mortgage is a loan for buying a house, for which the house itself is the security.
black holes: Black holes are regions of space where gravity is so strong that light cannot get out.
the heart: The heart is a muscle that pumps blood through the vessels of the body.
vaccination: Vaccination trains the immune system to recognise a disease before it strikes.
the Amazon river: The Amazon river carries more water than any other, through Peru and Brazil to the Atlantic.
jazz: Jazz is a style of music from New Orleans with swing, blue notes and improvisation.
a database index: A database index lets a query find rows without reading the whole table.
coffee: Coffee is a drink made from the roasted and ground seeds of a tropical shrub.
penguins: Penguins are birds of the south that cannot fly but swim with great skill.
democracy: Democracy is a form of government in which the people choose their rulers by vote.
the tide: The tide is the rise and fall of the sea caused by the pull of the moon.
a solar panel: A solar panel converts the light of the sun into electricity.
yoga: Yoga is an old Indian practice of postures, breathing and meditation.
football: Football is played by two teams of eleven who try to kick a ball into a goal.
DNA: DNA is the molecule that carries the genetic instructions of living things.
an earthquake: An earthquake is a shaking of the ground when rocks slip along a fault.
the Great Wall: The Great Wall is a row of fortifications along the old northern borders of China.
insulin: Insulin is a hormone that lets cells take up glucose; people with diabetes may lack it.
a neural network: A neural network is made of layers of simple units joined by weights that are trained.
bees: Bees gather nectar and pollen, make honey and fertilise flowers.
impressionism: Impressionism is a manner of painting with visible brush strokes and changing light, as Monet's.
the stock market: On the stock market, shares of companies are bought and sold.
a passport: A passport is a document of a state that lets its holder travel abroad.
rice: Rice is a cereal grown in flooded fields and the staple food of half of the world.
gravity: Gravity is the force by which all masses attract each other.
the Internet: The Internet joins computers all over the world by common protocols.
a bicycle: A bicycle has two wheels, pedals and a chain, and its rider keeps it upright.
Shakespeare: Shakespeare wrote Hamlet, Macbeth and sonnets in London around 1600.
recycling: Recycling turns waste paper, glass and metal into new material.
asthma: Asthma narrows the airways, so that breathing becomes hard.
the Roman Empire: The Roman Empire ruled the lands around the Mediterranean for centuries.
a password manager: A password manager keeps your logins in one encrypted vault.
whales: Whales are the largest mammals; they live in the sea and breathe air.
tea: Tea is made by pouring hot water over the leaves of an Asian shrub.
an electric car: An electric car is driven by a motor and a battery in place of an engine and a tank.
Docker: Docker packs an application with its libraries into a container that runs anywhere.
tennis: Tennis is played with rackets and a ball over a net.
the moon: The moon circles the Earth once in about 27 days.
antibiotics: Antibiotics kill bacteria or stop their growth, and do nothing against viruses.
"""


class Pair(NamedTuple):
    query: str
    document: str
    relevant: bool


def answers() -> list[tuple[str, str]]:
    """Things, and a document about each."""
    return [(thing, document) for thing, _, document in (line.partition(": ") for line in ANSWERS.strip().splitlines())]


def documents() -> list[str]:
    return [document for _, document in answers()]


def pairs(count: int = 400, seed: int = 0) -> list[Pair]:
    """Half of them relevant; the others put a question beside some other question's document."""
    rng = random.Random(seed)
    return [pair(rng, relevant=number % 2 == 0) for number in range(count)]


def pair(rng: random.Random, *, relevant: bool) -> Pair:
    (thing, own), (_, other) = rng.sample(answers(), k=2)
    return Pair(rng.choice(QUESTIONS).format(thing), own if relevant else other, relevant)
