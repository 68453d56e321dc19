"""Texts like those that users send: many languages, emoji, markup, very short and very long ones. They are the same
in every run."""
# ruff: noqa: RUF001 - other alphabets are the point

import random

SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "How do I reset my password?",
    "Wie viel Mehrwertsteuer fällt auf Bücher in Österreich an?",
    "Où se trouve la gare la plus proche, s'il vous plaît ?",
    "El niño comió piñas en la montaña.",
    "Os preços subiram 3,5 % em março.",
    "Gdzie mogę kupić bilet na pociąg do Łodzi?",
    "Türkiye'nin en büyük şehri İstanbul'dur.",
    "Hà Nội là thủ đô của Việt Nam.",
    "Все счастливые семьи похожи друг на друга.",
    "Де знаходиться найближча аптека?",
    "Η Αθήνα είναι η πρωτεύουσα της Ελλάδας.",
    "今日はとても良い天気ですね。",
    "机器学习模型需要大量的数据。",
    "오늘 저녁에 뭐 먹을까요?",
    "ما هي عاصمة المملكة المغربية؟",
    "איפה נמצאת תחנת הרכבת?",
    "भारत की राजधानी नई दिल्ली है।",
    "สวัสดีครับ วันนี้อากาศดีมาก",
    "ქართული ენა ძალიან ლამაზია.",
    "def mean(xs): return sum(xs) / len(xs)  # O(n)",
    "SELECT id, name FROM users WHERE created_at > '2024-01-01';",
    '{"error": {"code": 429, "message": "slow down"}}',
    "https://example.org/a/b?q=%F0%9F%98%80&lang=en#top",
    "<p>Terms &amp; conditions <b>apply</b>.</p>",
    "Order #4711: 12 × 3.50 € = 42.00 €",
    "🎉🎉 party tonight 🥳👩‍👩‍👧‍👦 see u @ 8pm!!! 🇺🇦",
    "ＦＵＬＬ ｗｉｄｔｈ and ﬁ ligatures and ½ fractions",
    "Z͑ͫ̓a̴l̷g̸o̵ comes",
    "pneumonoultramicroscopicsilicovolcanoconiosis",
]

NEARLY_NOTHING = [
    "a",
    ".",
    " ",
    "\n",
    "\t \n",
    "0",
    "ß",
    "é",
    "e\u0301",
    "😀",
    "字",
    "\u200b",
    "\ufeff",
    "...",
    "?!",
    "[MASK]",
    "\0",
    "\0nul in a \0word",
]


def varied_texts(count: int, seed: int = 0) -> list[str]:
    """Returns `count` texts. The first ones hold every sentence and every very short text at least once."""
    rng = random.Random(seed)
    texts = [*SENTENCES, *NEARLY_NOTHING]
    while len(texts) < count:
        texts.append(composed(rng))
    return texts[:count]


def composed(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.03:
        return " ".join(rng.choices(SENTENCES, k=rng.randint(30, 120)))
    if kind < 0.05:
        return "x" * rng.randint(100, 5_000)
    if kind < 0.10:
        return " ".join(rng.choices(NEARLY_NOTHING, k=rng.randint(2, 6)))
    if kind < 0.25:
        return " ".join(rng.choices(SENTENCES, k=rng.randint(3, 8))).upper()
    words = [word for sentence in rng.choices(SENTENCES, k=3) for word in sentence.split()]
    return " ".join(rng.choices(words, k=rng.randint(1, 20)))
