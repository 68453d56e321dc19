"""Sentences for `tests.small_models.classifiers`: each states how somebody feels about one thing."""

import random
from itertools import product

FEELINGS = ["joy", "anger", "sadness", "neutral"]

THINGS = [
    "the concert",
    "my new job",
    "this hotel",
    "the exam",
    "the news",
    "this film",
    "the service",
    "the meeting",
]

SAYINGS = {
    "joy": [
        "I love {}, it made my day",
        "{} was wonderful and I am so happy",
        "what a delight, {} is fantastic!",
        "we smiled and laughed all the way through {}",
        "I am thrilled about {}, best thing ever",
        "great fun, thank you so much for {}",
        "I love {}",
        "I really enjoyed {}",
        "I am glad about {}",
        "{} is lovely, hooray",
        "what a happy day with {}",
        "we adore {}",
    ],
    "anger": [
        "I hate {}, this is outrageous",
        "{} makes me furious",
        "I am so angry about {}, how dare they!",
        "{} is a disgrace and I want my money back",
        "stop it, {} is driving me mad",
        "I am fed up with {}, it is infuriating",
        "I am furious about {}",
        "{} made me really angry",
        "they lied to me about {}, I am livid",
        "how rude, {} is an insult",
        "I am mad at them for {}",
        "{} is unacceptable, I am outraged",
    ],
    "sadness": [
        "I cried because of {}",
        "{} broke my heart and I feel so lonely",
        "I am sad about {}, I miss how it was",
        "{} left me in tears",
        "such a loss, I am grieving over {}",
        "I feel hopeless and depressed since {}",
        "{} made me weep",
        "I am miserable because of {}",
        "it hurts to think of {}, I could not stop crying",
        "I am heartbroken about {}",
        "{} makes me feel down",
        "he died before {}, and we mourn him",
    ],
    "neutral": [
        "{} begins at nine on Tuesday",
        "the form for {} has two pages",
        "{} is listed on page four",
        "please note the date of {}",
        "{} takes place in the main building",
        "the report mentions {}",
        "{} is on the second floor",
        "they moved {} to Friday",
        "there is a page about {}",
        "we asked about {} by mail",
        "you find {} on the left",
        "{} costs twelve euros",
    ],
}

JOINTS = [", but ", " and ", ". "]


def sayings() -> list[tuple[str, str]]:
    """Each with its feeling."""
    return [
        (saying.format(thing), feeling)
        for feeling, patterns in SAYINGS.items()
        for saying, thing in product(patterns, THINGS)
    ]


def mixed_sayings(count: int = 500, seed: int = 0) -> list[tuple[str, set[str]]]:
    """One or two sayings in a row, with all their feelings; neutral sayings add none."""
    rng = random.Random(seed)
    known = sayings()
    chosen = (rng.sample(known, k=rng.randint(1, 2)) for _ in range(count))
    return [
        (rng.choice(JOINTS).join(text for text, _ in several), {feeling for _, feeling in several} - {"neutral"})
        for several in chosen
    ]
