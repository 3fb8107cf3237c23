"""What a message is for: one intent of the chatbot's, or none."""

from collections import Counter

from analysis.offline.cues import Cues
from analysis.offline.vocabulary import is_said, nearest, stems_of
from analysis.offline.words import is_question, stems, words
from analysis.protocol import Finding
from schemas.analysis import DEFAULT_INTENTS, NO_INTENT

_CUES = Cues(
    {
        "cancellation": """
            cancel|cancelling|canceling|cancelled|canceled|cancellation
            call off
            unsubscribe
            terminate|end my|the|our contract|subscription|membership|plan
            get|want|need|like my|a|the? money back
            dont want|need it|that|this anymore
        """,
        "complaint": """
            complain|complaint|complaints|complaining
            unacceptable|outrageous|ridiculous|disgraceful|appalling
            terrible|awful|horrible|worst|poor|lousy|bad service|support|experience|quality|bot
            very|so|really|extremely? disappointed|dissatisfied|unhappy|frustrated|frustrating|
                annoyed
            fed up
            sick|tired of this|waiting|your
            waste of time|money
            let me down
            ripped|rip me? off
            want|demand a|my? refund|compensation
            still waiting
        """,
        "problem": """
            problem|problems|issue|issues|error|errors|bug|bugs|glitch|crash|crashes|crashed|
                crashing
            doesnt|didnt|dont|wont|isnt|not|never work|working|load|loading|open|respond|
                start|connect|connecting
            stopped working
            broken|broke|damaged|defective|faulty
            cant|cannot log|sign in
            cant|cannot access|open|find my|the account|app|order|file|page
            failed|fails|failing|failure
            went|gone|something|somethings wrong
            keeps|kept failing|crashing|saying|asking
            stuck
            never|not|hasnt|havent|didnt arrived|arrive|received|receive
            troubleshoot|troubleshooting
        """,
        "booking": """
            book|booking|bookings|reserve|reserving|reservation|reservations
            schedule|set|make|arrange|get up? a|an|my|the|another? appointment|visit|viewing|
                meeting|table
            appointment with|at|for|on
            rent|hire a|an|the|some? car|cab|bike|room|apartment|house|flat|van
            get|need|call|order|want|find me? a|another? shared|luxury|regular|pool? cab|taxi|ride
        """,
        "purchase": """
            buy|buying|purchase|purchasing
            place|make an|the? order
            want|like|need to order
            get|want|need|like|give me|us? one|two|three|four|1|2|3|4|5|the|some|a|my? tickets|
                ticket
            check out my? cart|order
            add it|this|that|to? to|my my? cart|basket
            pay|paying for|with
            subscribe to
            upgrade my|the|to
        """,
        "account": """
            my|the account|profile|password|username|login|balance|settings
            reset|change|update|forgot|recover my|the? password|email|address|username|details
            log|sign me? in|out|up
            create|delete|open|close|verify|deactivate an|a|my|the? account|profile
            checking|savings account|balance
            transfer|send|wire some|the? money
            make a transfer
            transfer to|from
        """,
        "feedback": """
            feedback
            have|make|heres a|my|another suggestion
            i|id suggest you
            you should|could add|improve|consider
            would|itd be great|nice|better|helpful|good if
            feature request
            i|we really|just? love|loved|like|liked|hate|hated this|the|your new? app|site|website|
                service|product|bot|chatbot|feature|design|update|version|support
            great|good|nice|excellent|amazing|awesome|fantastic job|work|service|app|product|support
            well done
        """,
        "search": """
            find|finding|search|searching|look|looking|seek|seeking me|us? for|a|an|some|another|
                something|somewhere|someone|any
            find|show|suggest|recommend me|us|out
            show|suggest|recommend|list|find|get me? another|alternative|different
            show|suggest|recommend|list some|any|a|an|other|the|all|more|something|somewhere
            looking to find|buy|rent|see|watch|eat|go
            look|looking up|in|into|around
            any|some other|more|good|nice options|option|places|ones|suggestions|recommendations
            are|is there any|some|other|another
            whats playing|on|available|showing
            what is playing|on|available|showing
            where can|could|do i|we find|get|eat|watch|see
            anything|something else|similar|cheaper|different
            want|like|need to find|watch|see|listen|eat|hear
            in the mood for
            im|am hungry
        """,
        "smalltalk": """
            hi|hello|hey|hiya|greetings
            good morning|afternoon|evening|day|night
            how are you
            how is|are it|you|things going
            whats up
            thank|thanks|thankyou|thx|cheers
            bye|goodbye
            see|talk you|to later|soon|you
            nice|pleased to meet you
            have a nice|good|great|lovely|wonderful day|one|evening|weekend|time
            thats all|it
            that is|will|would be? all|it
            thatll|that will be all
            im all? good|set
            i am all? good|set
            who|what are you
            are you a|an? bot|robot|human|real|person|ai
            tell me a joke
            lol|haha|hahaha
        """,
        "ignored": """
            no problem|problems|issue|issues
            doesnt|does|dont|wont|not work for me|us
            not an? issue|problem
            stuck in|at
            whats|what is the|their|its phone? number
            look|looks|looking good|great|nice|forward
            dont want|need anything|something else|more
            not looking for anything else
            nothing|anything else
            out of order
            have a? look
        """,
    }
)
_TIES = ("cancellation", "complaint", "problem", "booking", "purchase", "account", "feedback",
         "search")  # fmt: skip
"""The first that is as strong as any: what went wrong outranks what it went wrong with."""


def default_intent(text: str, allowed: frozenset[str]) -> str:
    """Return the one of the default intents that cues speak for most; empty where none does."""
    found = Counter(label for label in _CUES.found(words(text)) if label in allowed)
    most = max((found[label] for label in _TIES), default=0)
    if most:
        return next(label for label in _TIES if found[label] == most)
    if "question" in allowed and is_question(text):
        return "question"
    return "smalltalk" if found["smalltalk"] else ""


def intent_of(text: str, intents: tuple[str, ...]) -> str:
    """Return the intent of a text, one of those given or `none`.

    An intent of the chatbot's own, all of whose words are said, comes first, of several the one of
    most words; then the default ones in its list; then an own one some of whose words are said.
    """
    own = [label for label in intents if label not in DEFAULT_INTENTS]
    said = stems(words(text)) if own else frozenset()
    named = [label for label in own if is_said(label, text, said)]
    if named:
        return max(named, key=lambda label: len(stems_of(label)))
    return (
        default_intent(text, frozenset(intents) & frozenset(DEFAULT_INTENTS))
        or nearest(own, said)
        or NO_INTENT
    )


def intent(text: str, intents: tuple[str, ...]) -> Finding:
    """Return the intent of a user's message."""
    return Finding("intent", intent_of(text, intents))
