"""Whether a conversation that has become quiet gave its user what they came for."""

from collections.abc import Sequence

from analysis.offline.behaviour import alike, behaviour_of
from analysis.offline.cues import Cues
from analysis.offline.flags import flags_of
from analysis.offline.intent import default_intent
from analysis.offline.sentiment import score_of
from analysis.offline.words import is_question, words
from analysis.protocol import Finding, Turn
from schemas.analysis import Resolution

_CUES = Cues(
    {
        "closing": """
            thank|thanks|thankyou|thx|cheers
            bye|goodbye
            thats all|it|everything
            that is|will|would be? all|it|everything
            thatll|that will be all
            all i|we need|needed|wanted
            im|were all? good|set|done|fine
            i|we am|are all? good|set|done|fine
            thats perfect|great|exactly|helpful
            that is|was perfect|great|exactly|helpful
            solved|resolved|fixed
            it|that works|worked now?
            no|nope nothing|thats|im
            nothing else|more
            dont|not need|want anything|more|further else?
            all good|set
            not at this|the time|moment
            not right? now
            that will|should|would do it?
            sounds|looks good|great|perfect
            no more|further help|assistance|questions
            appreciate it|that|your|the
            have a good|nice|great|wonderful|pleasant|lovely|safe day|one|time|trip|evening
            enjoy your|the|it
            glad|happy to|i be|could|have? help|helped|assist|of
            youre|you are? welcome
        """,
        "unsettled": """
            still not|doesnt|cant|dont|havent|hasnt|no|isnt|waiting|have|wrong
            no|not thanks? to you
            thanks for nothing
            didnt|doesnt|not|wasnt|isnt help|helpful|solve|solved|fix|answer|resolved|fixed
            not what i
            never mind
            nevermind
            forget it
            useless|hopeless|pointless
            give up
            giving up
        """,
    }
)
_BAD = -0.4
"""Of a score: what is more than one bad word."""
_REPEATABLE = 4
"""Words; a shorter message may well come twice."""


def _closes(turn: Turn) -> bool:
    return "closing" in _CUES.found(words(turn.content))


def _repeats(asked: Sequence[Turn]) -> bool:
    said = [words(turn.content) for turn in asked]
    return any(
        len(one) >= _REPEATABLE and any(alike(one, other) for other in said[:at])
        for at, one in enumerate(said)
    )


def _unhappy(last: Turn) -> str:
    if "unsettled" in _CUES.found(words(last.content)):
        return "the user's last word is that it is not settled"
    if default_intent(last.content, frozenset({"complaint", "problem"})):
        return "the user's last message is a complaint or a problem"
    if flags_of(last.content, ("asks-for-human", "abuse", "churn-risk")):
        return "the user asks for a human, threatens to leave or is abusive at the end"
    if score_of(last.content) <= _BAD:
        return "the user's last message sounds bad"
    return ""


def resolution_of(turns: Sequence[Turn]) -> tuple[Resolution, str]:
    """Return how far a conversation was resolved, and why. Takes its newest turns, oldest first."""
    asked = [turn for turn in turns if turn.role == "user"]
    if not asked:
        return "fully", "nobody asked for anything"
    last = asked[-1]
    if why := _unhappy(last):
        return "unresolved", why
    answer = turns[-1] if turns[-1].role == "assistant" else None
    settled = _closes(last) or (answer is not None and _closes(answer))
    if settled and _was_refused(turns, last):
        return "partially", "the user closes after a refusal"
    if settled and (_repeats(asked) or any(map(_wants_out, asked))):
        return "partially", "the user closes, but asked in vain on the way"
    if settled and (answer is None or _closes(answer) or not is_question(last.content)):
        return "fully", "the user closes, content"
    if answer is None:
        return "unresolved", "the user's last message was not answered"
    return _left_at(answer, turns)


def _wants_out(turn: Turn) -> bool:
    return bool(flags_of(turn.content, ("asks-for-human", "churn-risk")))


def _was_refused(turns: Sequence[Turn], last: Turn) -> bool:
    before = turns[: turns.index(last)]
    answers = [turn for turn in before if turn.role == "assistant"]
    return bool(answers) and behaviour_of(answers[-1].content, ())[0] == "refusing"


def _left_at(answer: Turn, turns: Sequence[Turn]) -> tuple[Resolution, str]:
    did, _ = behaviour_of(answer.content, turns[:-1])
    if did == "helpful":
        return "partially", "the user was answered, and never said that it helped"
    if did == "asking":
        return "unresolved", "the user left at a question of the assistant's"
    return "unresolved", f"the last answer is {did}"


def resolution(turns: Sequence[Turn]) -> Finding:
    """Return the resolution of a conversation, by its newest turns."""
    label, reasoning = resolution_of(turns)
    return Finding("resolution", label, reasoning=reasoning)
