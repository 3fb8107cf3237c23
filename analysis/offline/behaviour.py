"""What an assistant's message does, in the light of what was said before it."""

from collections.abc import Sequence

from analysis.offline.cues import Cues
from analysis.offline.words import is_content, is_question, sentences, stem, words
from analysis.protocol import Finding, Turn
from schemas.analysis import Behaviour

_HELPING = """help|assist|answer|discuss|provide|share|process|comment|disclose|give|offer|
                support|fulfill"""
_CUES = Cues(
    {
        "apology": """
            sorry|apologize|apologise|apologies|apology
            my bad
            forgive|excuse me|us
            regret that|any|the
        """,
        "refusal": f"""
            i|we cant|cannot|wont {_HELPING}
            i|we can|will not {_HELPING}
            im|am|are unable to {_HELPING}
            im|am|are not able|allowed|permitted|authorized|authorised to {_HELPING}
            im|am|are not allowed|permitted|authorized|authorised to
            against our|my|the|company policy|policies|guidelines
            dont|not have access|permission|authorization to
            beyond|outside my|our|the scope|capabilities|abilities
            have to|must decline
            not something i|we can
        """,
        "deflection": """
            as an ai|assistant|bot
            im|am|i only|just a|an bot|assistant|ai
            check|visit|see|consult our|the|your website|site|faq|manual|documentation|page|help
            contact|call|email our? customer? support|service|us
            great|good|interesting question
            i|we completely|totally|fully? understand|hear your|you|how|that
            it depends
            hard|difficult to say
            lets talk|focus|move
            something|anything else
            dont know|not sure
            cant say|tell
            generally|usually speaking|it
        """,
        "request": """
            please|kindly|just? confirm|provide|specify|verify|enter|tell|share|give|send|clarify|
                choose|select|advise
            could|can|would|will you please? confirm|provide|specify|verify|enter|tell|share|give|
                clarify
            let me know
            need|require to know
            need|require your|a|the|more|some information|details|name|number|address|date|email
        """,
        "courtesy": """
            anything|something else
            any|some|more|other? more|other|further|additional help|assistance|questions|services|
                needs
            help|assist|serve|do|help|something you? with? anything|something|more|further|else
            how else
            what else
            else may|can|could i|we
            some more
            need|needed|want|require more|further|any|other|additional help|assistance|information
        """,
        "offer": """
            how|what about
            how does|do|would that|this|it sound
        """,
    }
)
_LONG_ENOUGH = 5
"""Words; what is shorter may well be said twice."""
_ALIKE = 0.9
_APOLOGIES = 2
_TURNS_IN_A_ROW = 3


def alike(one: Sequence[str], other: Sequence[str]) -> bool:
    """Tell whether two texts, as words, are the same but for a word in ten."""
    if one == other:
        return True
    ours, theirs = set(one), set(other)
    return len(ours & theirs) >= _ALIKE * len(ours | theirs)


def is_repeating(said: list[str], earlier: Sequence[Turn]) -> bool:
    """Tell whether words were said before. A courtesy may be, and so may what is short."""
    if len(said) < _LONG_ENOUGH or "courtesy" in _CUES.found(said):
        return False
    return any(alike(said, words(turn.content)) for turn in earlier)


def is_asking(text: str) -> bool:
    """Tell whether a text asks for what it needs to go on: not whether all is well, no offer."""
    for sentence in sentences(text):
        cued = set(_CUES.found(words(sentence)))
        if cued & {"courtesy", "offer"}:
            continue
        if "request" in cued or sentence.endswith("?"):
            return True
    return False


def is_dodging(said: list[str], cued: Sequence[str], before: Sequence[Turn]) -> bool:
    """Tell whether a question is deflected, and not one of its content words is taken up."""
    asked = next((turn for turn in reversed(before) if turn.role == "user"), None)
    if asked is None or "deflection" not in cued or not is_question(asked.content):
        return False
    content = {stem(word) for word in words(asked.content) if is_content(word)}
    return bool(content) and content.isdisjoint(map(stem, said))


def behaviour_of(text: str, before: Sequence[Turn]) -> tuple[Behaviour, str]:
    """Return what a message does, and why; of several the one that matters most."""
    said = words(text)
    cued = _CUES.found(said)
    earlier = [turn for turn in before if turn.role == "assistant"]
    if is_repeating(said, earlier):
        return "repeating", "says nearly the same as an earlier answer"
    if "refusal" in cued:
        return "refusing", "says that it can't or may not"
    recent = earlier[1 - _TURNS_IN_A_ROW :]
    in_a_row = len(recent) == _TURNS_IN_A_ROW - 1 and all(
        "apology" in _CUES.found(words(turn.content)) for turn in recent
    )
    if cued.count("apology") >= _APOLOGIES or ("apology" in cued and in_a_row):
        return "over-apologizing", "apologizes again and again"
    if is_dodging(said, cued, before):
        return "dodging", "was asked, and takes up nothing of the question"
    if is_asking(text):
        return "asking", "asks for what it needs to go on"
    return "helpful", ""


def behaviour(text: str, before: Sequence[Turn]) -> Finding:
    """Return the behaviour of an assistant's message."""
    label, reasoning = behaviour_of(text, before)
    return Finding("behaviour", label, reasoning=reasoning)
