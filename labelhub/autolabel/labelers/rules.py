r"""Keywords and patterns, written by people into label definitions or typed beside them.

Two things in a definition are rules; everything else is prose for people and for the other labelers:

* ``"lost my card"``: a phrase in double quotes. It matches as whole words, in any case, with any white space.
* ``/stol[ae]n/``: a pattern between slashes, with no space just inside them. It is searched in any case;
  ``\/`` is a slash. Patterns are RE2's, which read every text once and so cannot hang; look-around and
  back-references do not exist there.

Typed rules (``{label: [rule, ...]}``) use the same two forms, and a bare word or phrase needs no quotes.

A text votes for the label with the most matching rules; a tie is an abstention. The score of a vote is

    matched rules that speak for the label / all matched rules
    x (examples on which such a vote was right + 2) / (examples with such a vote + 3)

so an untried rule starts at 2/3 (Laplace's rule of succession after one imagined success) and earns its
score from labeled examples.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from ..types import ABSTAINED, ABSTENTION, Answer, Example, GivenVotes, Vote
from .state import read_state, write_state
from .views import UNSPACED, readable

if TYPE_CHECKING:
    from re2 import Options, Set

NAME = "rules"
MOST_RULES = 2_000
LONGEST_RULE = 500  # characters
LONGEST_EVIDENCE = 80  # characters

_SET_SIZE = 64  # rules searched for in one pass over a text
_RULE_MEMORY = 1 << 20  # bytes one rule may need when compiled
_SET_MEMORY = 128 << 20
_GAP = r"[\s\pZ\x{0B}\x{1C}-\x{1F}\x{85}]+"  # what Python calls white space

_IN_DEFINITION = re.compile(
    r'"(?P<straight>[^"]+)"|“(?P<curly>[^”]+)”'
    r"|(?<![^\s,;:(])(?P<pattern>/(?!\s)(?:\\.|[^/\\\n])+(?<!\s)/)(?=$|[\s,.;:)])"
)


class Rule(NamedTuple):
    """One rule: what was written, and the two RE2 patterns made of it.

    ``rough`` may match more than ``exact`` and is quick to search for among many; the first group of
    ``exact`` is the evidence.
    """

    label: str
    source: str
    rough: str
    exact: str


def rules_in(definition: str) -> list[str]:
    """Return the rules written in a label's definition, as they would be typed."""
    found = []
    for match in _IN_DEFINITION.finditer(definition):
        phrase = match["straight"] or match["curly"]
        found.append(f'"{phrase.strip()}"' if phrase else match["pattern"])
    return [rule for rule in found if rule.strip('" ')]


def without_rules(definition: str) -> str:
    """Return a definition as prose: patterns dropped, quoted phrases kept without their quotes."""
    return _IN_DEFINITION.sub(lambda m: m["straight"] or m["curly"] or " ", definition)


def check_rules(rules: Mapping[str, Sequence[str]], labels: Iterable[str] | None = None) -> None:
    """Refuse typed rules that cannot work.

    Args:
        rules: label to rules, as typed.
        labels: the label set; None to skip that check.
    Raises: ValueError with one sentence about the first rule that is wrong.
    """
    known = None if labels is None else set(labels)
    if not isinstance(rules, Mapping):
        raise ValueError("Rules must be given as a list for each label.")
    for label, written in rules.items():
        if known is not None and label not in known:
            raise ValueError(f"There are rules for “{label}”, which is not one of the labels.")
        if isinstance(written, str) or not all(isinstance(rule, str) for rule in written):
            raise ValueError(f"The rules for “{label}” must be a list of texts.")
        for rule in written:
            _compile(_read_rule(label, rule))
    if sum(len(written) for written in rules.values()) > MOST_RULES:
        raise ValueError(f"There are more than {MOST_RULES} rules.")


def gather(label_schema: Mapping[str, str], typed: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return all rules of each label that has any, from the definitions first, each once.

    Raises: ValueError with one sentence about the first rule that is wrong.
    """
    check_rules(typed, label_schema)
    every = {
        label: list(dict.fromkeys([*rules_in(definition), *(r for r in typed.get(label, ()) if r.strip())]))
        for label, definition in label_schema.items()
    }
    every = {label: rules for label, rules in every.items() if rules}
    check_rules(every)
    return every


class RulesLabeler:
    """Labels by matching rules.

    Args:
        rules: label to its rules.
        record: label to (right, votes): how often a vote for it was right on labeled examples.
    """

    guess = False

    def __init__(self, rules: Mapping[str, Sequence[str]], record: Mapping[str, Sequence[int]]) -> None:
        self.rules = {label: list(written) for label, written in rules.items()}
        self.record = {label: (int(right), int(votes)) for label, (right, votes) in record.items()}
        self._rules = [_read_rule(label, rule) for label, written in rules.items() for rule in written]
        self._sets = [
            (start, _search_set(self._rules[start : start + _SET_SIZE]))
            for start in range(0, len(self._rules), _SET_SIZE)
        ]

    @classmethod
    def learn(cls, rules: Mapping[str, Sequence[str]], examples: Sequence[Example]) -> RulesLabeler:
        """Return a labeler whose scores rest on how its votes did on the examples."""
        untried = cls(rules, {})
        votes, right = Counter[str](), Counter[str]()
        for vote, example in zip(untried.vote([e.text for e in examples]), examples, strict=True):
            if vote.label is not None:
                votes[vote.label] += 1
                right[vote.label] += vote.label == example.label
        return cls(rules, {label: (right[label], n) for label, n in votes.items()})

    def vote(self, texts: Sequence[str]) -> list[Vote]:
        """Return one vote per text; an abstention where no rule matches, or where the rules tie."""
        return [self._vote(readable(text)) for text in texts] if self._rules else [ABSTENTION] * len(texts)

    def label(self, texts: Sequence[str], given_votes: GivenVotes | None = None) -> list[Answer]:
        """Answer for each text with the rules' vote; see ``Labeler.label``."""
        return [
            Answer(vote.label, vote.score, ABSTAINED if vote.label is None else None, {NAME: vote})
            for vote in self.vote(texts)
        ]

    def explain(self, text: str, label: str) -> list[str]:
        """Return what the label's rules match in the text."""
        found = [quote for rule, quote in self._matches(readable(text)) if rule.label == label]
        return list(dict.fromkeys(found))[:5]

    def facts(self) -> dict[str, Any]:
        """Return what ``__init__`` needs, as JSON can hold it."""
        return {"rules": self.rules, "record": self.record}

    def to_state(self, labels: Sequence[str]) -> bytes:
        """Return the rules, their record and the label set as bytes."""
        return write_state({"method": NAME, "labels": list(labels), **self.facts()}, {})

    @classmethod
    def from_state(cls, state: bytes) -> RulesLabeler:
        """Undo ``to_state``."""
        facts, _ = read_state(state)
        return cls(facts["rules"], facts["record"])

    def _vote(self, text: str) -> Vote:
        matches = self._matches(text)
        if not matches:
            return ABSTENTION
        speaking = Counter(rule.label for rule, _ in matches).most_common(2)
        label, most = speaking[0]
        if len(speaking) > 1 and speaking[1][1] == most:
            return ABSTENTION
        right, votes = self.record.get(label, (0, 0))
        evidence = next(quote for rule, quote in matches if rule.label == label)
        return Vote(label, most / len(matches) * (right + 2) / (votes + 3), evidence)

    def _matches(self, text: str) -> list[tuple[Rule, str]]:
        """Return the rules that match, in their order, each with the first text it matches."""
        near: list[Rule] = []
        for start, searched in self._sets:
            hits = searched.Match(text)
            count = min(_SET_SIZE, len(self._rules) - start)
            # The last pattern of a set matches everything: where even it is missing, the search ran out
            # of memory, which RE2 does not report, and the rules are tried one by one.
            places = range(count) if hits is None else sorted(hit for hit in hits if hit < count)
            near += [self._rules[start + i] for i in places]
        tried = [(rule, _compile(rule).search(text)) for rule in near]
        return [(rule, match.group(1)[:LONGEST_EVIDENCE]) for rule, match in tried if match]


def _read_rule(label: str, source: str) -> Rule:
    """Turn a rule as written into patterns. Raises: ValueError when it says nothing or too much."""
    rule = readable(source).strip()
    if len(source) > LONGEST_RULE:
        raise ValueError(f"A rule for “{label}” is longer than {LONGEST_RULE} characters.")
    if len(rule) > 2 and rule.startswith("/") and rule.endswith("/"):
        pattern = rule[1:-1].replace("\\/", "/")
        return Rule(label, source, pattern, f"({pattern})")
    if len(rule) > 1 and rule[0] in '"“' and rule[-1] in '"”':
        rule = rule[1:-1]
    parts = rule.split()
    if not parts:
        raise ValueError(f"A rule for “{label}” is empty.")
    phrase = _GAP.join(_escape(part) for part in parts)
    before = r"(?:^|[^\pL\pM\pN_])" if _needs_edge(parts[0][0]) else ""
    after = r"(?:$|[^\pL\pM\pN_])" if _needs_edge(parts[-1][-1]) else ""
    return Rule(label, source, phrase, f"{before}({phrase}){after}")


def _needs_edge(character: str) -> bool:
    """Tell whether a word ends at this character only if none follows: not in scripts without spaces."""
    return (character.isalnum() or character == "_") and not re.match(f"[{UNSPACED}]", character)


def _escape(text: str) -> str:
    import re2

    return str(re2.escape(text))


def _options(memory: int) -> Options:
    import re2

    options = re2.Options()
    options.case_sensitive = False
    options.log_errors = False
    options.max_mem = memory
    return options


@lru_cache(MOST_RULES * 2)
def _compile(rule: Rule) -> Any:
    """Return a rule's compiled pattern. Raises: ValueError when RE2 refuses it, or it matches any text."""
    import re2

    try:
        re2.compile(rule.rough, _options(_RULE_MEMORY))  # before the group is added: ")(" is no pattern
        compiled = re2.compile(rule.exact, _options(_RULE_MEMORY))
    except re2.error as error:
        reason = error.args[0] if error.args else "it is not a pattern"
        reason = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise ValueError(f"The rule {rule.source} for “{rule.label}” cannot be used: {reason}.") from error
    if compiled.search("") is not None:
        raise ValueError(f"The rule {rule.source} for “{rule.label}” matches even an empty text.")
    return compiled


def _search_set(rules: Sequence[Rule]) -> Set:
    import re2

    searched = re2.Set.SearchSet(_options(_SET_MEMORY))
    for rule in rules:
        _compile(rule)
        searched.Add(rule.rough)
    searched.Add("")
    try:
        searched.Compile()
    except re2.error as error:
        raise ValueError("The rules are too large together: shorten some, or remove some.") from error
    return searched
