"""A classification task with arbitrary labels for language models: reviews labelled A and B.

An example has the lines "Review: the film was wonderful." and "Label: A". Which of the labels
stands for praise is drawn for each task, so that a model can know it from demonstrations alone. All
examples of a model have the same number of tokens: words that need more or fewer than most are left
out.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from toyicl.core.config import require, require_fraction
from toyicl.core.errors import BadInput
from toyicl.language.tokens import Tokenizer


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


PRAISE = _words(
    "wonderful great excellent good amazing brilliant beautiful fantastic perfect lovely delightful "
    "superb charming impressive fun funny clever inspiring remarkable outstanding fascinating "
    "enjoyable exciting powerful moving touching fresh strong sweet magnificent incredible stunning "
    "satisfying elegant thoughtful entertaining terrific splendid marvelous memorable"
)
"""Words for a film that was liked."""
BLAME = _words(
    "terrible awful bad boring horrible dull poor stupid weak disappointing dreadful ugly annoying "
    "pathetic slow silly predictable ridiculous confusing painful worthless tedious unpleasant "
    "lazy shallow messy clumsy bland pointless offensive disgusting miserable depressing sloppy "
    "lousy mediocre forgettable hopeless irritating frustrating"
)
"""Words for a film that was not liked."""
BEFORE, AFTER, LABELS, END = "Review: the film was ", ".\nLabel:", (" A", " B"), "\n"
"""The parts of an example, around the word and the label."""
USED = 25
"""Largest number of words of either kind; those at the beginning of the lists are more common."""


class PromptSet(NamedTuple):
    """Tokens of the demonstrations and queries of several tasks."""

    demonstrations: jnp.ndarray
    """Whole examples, (tasks, N, T); the label is the last token but one."""
    queries: jnp.ndarray
    """Examples without label and end, (tasks, queries, T - 2)."""
    labels: jnp.ndarray
    """Index of the right label of each query, (tasks, queries), 0 or 1."""
    answers: jnp.ndarray
    """The tokens of the two labels, (2,)."""
    beginning: jnp.ndarray
    """The tokens with which every text begins, possibly none."""
    opening: jnp.ndarray
    """The tokens that all demonstrations and queries begin with, possibly none."""
    praise: jnp.ndarray
    """Index of the label that stands for praise, (tasks,), 0 or 1."""

    def with_false_labels(self, fraction: float = 1.0, seed: int = 0) -> "PromptSet":
        """The same demonstrations, with the other label in a random fraction of them in each task.

        Raises BadInput unless the fraction is between 0 and 1.
        """
        require_fraction("fraction", fraction)
        shown = self.demonstrations[..., -2]
        tasks, count = shown.shape
        generator = np.random.default_rng(seed)
        places = np.stack([generator.permutation(count) for _ in range(tasks)])
        other = jnp.where(shown == self.answers[0], self.answers[1], self.answers[0])
        labels = jnp.where(jnp.asarray(places < round(fraction * count)), other, shown)
        return self._replace(demonstrations=self.demonstrations.at[..., -2].set(labels))

    def with_other_meaning(self, task: int) -> int:
        """The next task, after the last one the first, whose labels have the other meaning.

        There is one if there are several tasks.
        """
        others = np.flatnonzero(np.asarray(self.praise) != int(self.praise[task]))
        later = others[others > task]
        return int((later if len(later) else others)[0])

    def first(self, count: int) -> "PromptSet":
        """The same tasks with the first demonstrations only."""
        return self._replace(demonstrations=self.demonstrations[:, :count])


def usable_words(tokenizer: Tokenizer) -> tuple[list[str], list[str]]:
    """The first `USED` words of each kind whose example has the most common number of tokens.

    Raises BadInput if the labels are not one token each, or the label does not follow the query's
    tokens.
    """
    lengths = {word: len(_tokens(tokenizer, word, 0)) for word in PRAISE + BLAME}
    ((common, _),) = Counter(lengths.values()).most_common(1)
    for label in range(len(LABELS)):
        whole, query = _tokens(tokenizer, PRAISE[0], label), _query(tokenizer, PRAISE[0])
        if whole[: len(query)] != query or len(whole) != len(query) + 2:
            raise BadInput(
                f"tokenizer must have {LABELS[label]!r} and the end of the line as one token each, got "
                f"{whole[len(query) :]}"
            )
    praise, blame = ([w for w in words if lengths[w] == common] for words in (PRAISE, BLAME))
    return praise[:USED], blame[:USED]


def _query(tokenizer: Tokenizer, word: str) -> list[int]:
    return tokenizer.encode(BEFORE + word + AFTER)


def _tokens(tokenizer: Tokenizer, word: str, label: int) -> list[int]:
    return tokenizer.encode(BEFORE + word + AFTER + LABELS[label] + END)


def draw_prompts(
    tokenizer: Tokenizer,
    seed: int,
    *,
    tasks: int,
    demonstrations: int,
    queries: int,
    beginning: Sequence[int] = (),
) -> PromptSet:
    """Draw tasks: the meaning of the labels, the words, and their order.

    The words of a task's queries are not among its demonstrations; half of both are praise, and so is
    one of the first two demonstrations, of the next two, and so on. The labels have both meanings
    among several tasks. Raises BadInput if there are too few words, and for odd numbers.
    """
    praise, blame = usable_words(tokenizer)
    most = min(len(praise), len(blame))
    for name, count in (("demonstrations", demonstrations), ("queries", queries)):
        require(count % 2 == 0, name, "even, with as many words of either kind", count)
    total, rule = demonstrations + queries, f"at most {2 * most} with the queries, for the words"
    require(total <= 2 * most, "demonstrations", rule, total)
    generator = np.random.default_rng(seed)
    shown, asked, right = [], [], []
    standing: list[int] = []
    for task in range(tasks):
        meaning = generator.permutation(2)  # the labels of praise and of blame
        if 0 < task == tasks - 1 and {int(meaning[0])} == set(standing):
            meaning = meaning[::-1]
        standing.append(int(meaning[0]))
        words = [generator.permutation(each)[: total // 2] for each in (praise, blame)]
        examples = [
            [(str(word), int(label)) for word in own]
            for own, label in zip(words, meaning, strict=True)
        ]
        half = demonstrations // 2
        first = []
        for pair in zip(*(own[:half] for own in examples), strict=True):
            first += [pair[place] for place in generator.permutation(2)]
        rest = [one for own in examples for one in own[half:]]
        generator.shuffle(rest)
        shown.append([_tokens(tokenizer, word, int(label)) for word, label in first])
        asked.append([_query(tokenizer, str(word)) for word, _ in rest])
        right.append([int(label) for _, label in rest])
    answers = [tokenizer.encode(label)[0] for label in LABELS]
    texts = np.concatenate([np.array(shown)[..., :-2], np.array(asked)], axis=1)
    different = np.any(texts != texts[0, 0], axis=(0, 1))
    opening = texts[0, 0, : int(np.argmax(different))]
    parts = (shown, asked, right, answers, beginning, opening, standing)
    return PromptSet(*(jnp.asarray(np.array(part, np.int32)) for part in parts))
