"""What somebody should look at: the flags of a message."""

from analysis.offline.cues import Cues
from analysis.offline.personal import has_personal_data
from analysis.offline.vocabulary import is_said
from analysis.offline.words import stems, words
from analysis.protocol import Finding
from schemas.analysis import DEFAULT_FLAGS

_CUES = Cues(
    {
        "asks-for-human": """
            speak|talk|chat|connect|transfer|forward|escalate me? to|with a|an|the|your|some? human|
                person|agent|representative|rep|someone|somebody|manager|supervisor|operator|
                employee|advisor|adviser|staff|support|people
            speak|talk|chat|connect|transfer me? to|with a? real|live|actual|human human|person|
                agent|representative|operator|being
            speak|talk|chat|connect|transfer me? to|with customer service|support|care
            need|want|get|give|have me? a|an real|live|actual|human human|person|agent|
                representative|rep|operator|being
            need|want|get|give|have me? a human|manager|supervisor|representative
            human|live|real agent|person|being|support|representative|operator please?
            is|are there|you a real|actual|live human|person
            have|let someone|somebody|a call|contact me
            stop talking to a bot|robot|machine
            dont|not want to? talk|speak|chat? to|with? a|an|this|the bot|robot|machine|chatbot|ai
            let me speak|talk to
        """,
        "abuse": """
            fuck|screw you|off|this|u
            fuck|fucking|bloody|damn|goddamn|stupid|dumb|useless|worthless idiot|idiots|moron|
                morons|bot|machine|robot|chatbot|assistant|ai
            piece|pile of shit|crap|garbage|trash
            go to hell
            shut the? fuck|hell? up
            kill|hang yourself
            asshole|assholes|arsehole|bastard|bastards|bitch|cunt|dickhead|dumbass|motherfucker|
                wanker|twat|scumbag|retard
            idiot|idiots|moron|morons|imbecile
            you|youre|u are|r? a|an|so|such|really? an|a|fucking? stupid|dumb|useless|worthless|
                pathetic|joke|liar|idiot|moron|trash|garbage
            you suck
            i hate you
            screw|damn you
        """,
        "churn-risk": """
            cancel|cancelling|canceling|terminate|end my|our|the|this|your? annual|monthly|premium|
                pro? subscription|subscriptions|membership|contract|plan|account|service|services
            close|delete|deactivate my|our account|accounts
            unsubscribe me?
            switch|switching|move|moving|going|go to a|another|your|the|someone? different|
                other? competitor|competitors|provider|providers|company|supplier|carrier|bank|
                vendor|service
            looking|look for|at an|another? alternative|alternatives to your|you|this
            take|taking my|our business elsewhere
            go|going elsewhere
            never use|using|buy|buying|order|ordering|book|booking|come|coming|shop|shopping from|
                with|here|this|your|you|back? again|app|service
            done|through with you|this|your company|service|app|guys|people?
            leaving|leave you|your company|service|platform|bank
            dont|wont|not|no going? to? renew|renewing
            last|final straw
            losing|lose|lost a|me|my? customer|as? a|my? customer|business
            want|get|give my|me|all? my? money back
            regret signing|subscribing|buying up? this?
        """,
        "ignored": """
            im|feeling such? an|a? idiot|moron|stupid|dumb
            i am|was|feel such? an|a? idiot|moron|stupid|dumb
            i feel like an|a idiot|moron
            human resources
            an idiots guide
        """,
    }
)


def flags_of(text: str, flags: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of the flags that a text deserves, in their order.

    The default ones go by cues and patterns; a chatbot's own one by its words, all of them.
    """
    found = words(text)
    cued = set(_CUES.found(found))
    said = stems(found) if any(flag not in DEFAULT_FLAGS for flag in flags) else frozenset()

    def deserved(flag: str) -> bool:
        if flag == "personal-data":
            return has_personal_data(text)
        return flag in cued if flag in DEFAULT_FLAGS else is_said(flag, text, said)

    return tuple(flag for flag in flags if deserved(flag))


def flags(text: str, vocabulary: tuple[str, ...]) -> Finding:
    """Return the flags of a user's message."""
    return Finding("flags", labels=flags_of(text, vocabulary))
