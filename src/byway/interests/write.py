"""Descriptions in a language model's own words, written from a cluster's items and keywords.

A written description has to be another one for every cluster of every level: where two are alike, the keywords of
the later one are added until they differ. This module knows no tree: only titles and keywords.
"""

import re
from typing import Any

import torch

from byway.base import device, models, precision

TITLES = 8
"""Titles of a cluster that are shown to the writer."""
LONGEST_TITLE = 80
LONGEST = 14
"""Tokens of a description: it is the answer that the language policy has to spell."""
BATCH = 16
"""Prompts that a processor reads at once."""
NEEDS = 1 << 28
"""Bytes of a GPU's memory that a prompt takes, amply."""
ASK = (
    "These items belong together:\n{titles}\nKeywords: {keywords}\n"
    "Name what they have in common, in two to five words. Answer with the name alone."
)


def write(model: str, titles: list[list[str]], keywords: list[list[str]], taken: set[str]) -> list[str]:
    """One description a cluster, all different and none in `taken`, which they are added to (lower case)."""
    raw = _answers(model, [_prompt(t, k) for t, k in zip(titles, keywords, strict=True)])
    return [unique(tidy(text), words, taken) for text, words in zip(raw, keywords, strict=True)]


def _prompt(titles: list[str], keywords: list[str]) -> str:
    # A title is data: one line each, cut, so that it cannot pass for the instruction's end.
    lines = [f"- {' '.join(title.split())[:LONGEST_TITLE]}" for title in titles[:TITLES]]
    return ASK.format(titles="\n".join(lines), keywords=", ".join(keywords))


@torch.no_grad()
def _answers(name: str, asked: list[str]) -> list[str]:
    """Greedy answers, in batches of prompts of about equal length."""
    tokenizer, model = models.load_tokenizer(name), models.load(name, precision.dtype("auto"))
    sequences: list[list[int]] = []
    for text in asked:
        if tokenizer.chat_template:
            messages = [{"role": "user", "content": text}]
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        sequences.append(tokenizer(text, add_special_tokens=False).input_ids)
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    answers = [""] * len(asked)
    end: int = tokenizer.eos_token_id
    together = BATCH * device.several(BATCH * NEEDS)
    for start in range(0, len(order), together):
        part = order[start : start + together]
        width = max(len(sequences[i]) for i in part)
        ids = torch.tensor([[end] * (width - len(sequences[i])) + sequences[i] for i in part])
        real = torch.arange(width) >= torch.tensor([[width - len(sequences[i])] for i in part])
        generate: Any = model.generate
        out = generate(
            input_ids=ids.to(model.device),
            attention_mask=real.long().to(model.device),
            do_sample=False,
            max_new_tokens=LONGEST,
            pad_token_id=end,
        )
        for i, tokens in zip(part, out[:, width:].tolist(), strict=True):
            answers[i] = tokenizer.decode(tokens, skip_special_tokens=True)
    return answers


def tidy(text: str) -> str:
    """The first line of an answer, without quotes, marks of lists and of emphasis, and a full stop at the end.

    >>> tidy('  "Street Food Tours."\\nThese items are')
    'Street Food Tours'
    >>> tidy("1. **Street Food**."), tidy("_Ramen_"), tidy("- 80s Music")
    ('Street Food', 'Ramen', '80s Music')
    """
    line = next((line for line in text.splitlines() if line.strip()), "")
    begun = re.sub(r"^(?:[\s\-*_`#.)\"'“”]|\d+[.)]\s)+", "", line)
    return re.sub(r"\s+", " ", re.sub(r"[\s*_`.\"'“”:;,]+$", "", begun))


def unique(text: str, keywords: list[str], taken: set[str]) -> str:
    """`text`, with as many of the keywords as it takes to be new, then a number; lower case counts as the same.

    >>> taken = {"street food"}
    >>> unique("Street food", ["ramen", "broth"], taken)
    'Street food, ramen'
    """
    name = text or ", ".join(keywords) or "items"
    more = [word for word in keywords if word.lower() not in name.lower()]
    while name.lower() in taken and more:
        name = f"{name}, {more.pop(0)}"
    base, number = name, 2
    while name.lower() in taken:
        name, number = f"{base}, {number}", number + 1
    taken.add(name.lower())
    return name
