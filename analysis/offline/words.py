"""What the offline analyzers share: words, stems, questions, and whether a text is English.

Every function is linear in its text, and takes any text.
"""

import re
from functools import lru_cache

from snowballstemmer.english_stemmer import EnglishStemmer  # type: ignore[import-untyped]

MAX_CHARACTERS = 4_000
"""Of a message, from its start: what is judged. What is longer is mostly pasted, and costs time."""

_WORD = re.compile(r"[^\W_]+")
_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")
_APOSTROPHES = str.maketrans("", "", "'\u2018\u2019\u02bc")
_STEMMABLE = 24
"""Characters; the stemmer takes about a microsecond for each, and no English word is longer."""


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


FUNCTION_WORDS = _set("""
    a about above after again against all also although always am an and another any anybody anyone
    anything anyway are arent around as at away be because been before being below between both but
    by can cannot cant could couldnt did didnt do does doesnt doing done dont down during each
    either else enough etc even ever every everybody everyone everything few first for from further
    had hadnt has hasnt have havent having he her here hers herself him himself his how however i
    id if ill im in instead into is isnt it its itself ive just last least less lets like many
    may maybe me might mine more most much must my myself near neither never next no nobody none nor
    not nothing now of off often on once one ones only onto or other others our ours out over own
    per perhaps quite rather really same several shall she shes should shouldnt since so some
    somebody someone something sometimes somewhere soon still such than that thats the their theirs
    them then there theres these they theyre theyve thing things this those though through thus till
    to too toward towards two under unless until up upon us very was wasnt way we well were weve
    werent what whatever whats when where wheres whether which while who whom whos whose why will
    with within without wont would wouldnt yet you youd youll your youre yours yourself youve
""")
"""Words that carry grammar, not content; without their apostrophes."""

CHAT_WORDS = _set("""
    able actually ahead alright appreciate ask asked available awesome bad best better big book buy
    bye call came cancel certain change check cheap choose come coming confirm correct course day
    dear decide different easy exactly excellent fine find finding forward found fun gave get gets
    getting give given glad go goes going gonna good goodbye got great guess guy guys happy hello
    help helped helpful helping here hey hi high hope idea in interested interesting keep kind know
    large later leave leaving let little long look looking lot lots love low made make makes making
    mean mind moment morning my name need needed needs nice nope number oh ok okay old open
    option options particular people perfect person pick place places plan planning play please
    possible prefer pretty purchase put ready really recommend rent request reserve return right
    said same say says schedule search searching see seem seems sell send set show small sorry sort
    sound sounds start stay stop suggest suitable sure take taking talk tell thank thanks think
    today tomorrow tonight tried try trying type use used using visit wait wanna want wanted wants
    watch welcome went while wish wonder wonderful work working works worry wrong yeah yep yes
    yesterday
    accept accordingly alone anymore asking attend attending began begin begins bored called changed
    confirmed cool decided directed eager eat eating else enjoy expensive finally finish happen
    happening hear heard hold id listen listening located nah picked playing preferably preferred
    pricey reasonably seen serve serves serving started starting thatll willing yup
    hundred twenty thirty half quarter past clock
    monday tuesday wednesday thursday friday saturday sunday january february march april june july
    august september october november december am pm oclock afternoon evening hour hours minute
    minutes week weeks month months year years time times st nd rd th
    three four five six seven eight nine ten
""")
"""What people say to any chatbot, whatever they talk of: no topics.

Public lists of English stop words were no use here: theirs hold `bill`, `order` and `room`.
"""

_FOREIGN_WORDS = _set("""
    ich du er sie wir ihr der die das den dem ein eine einen und oder nicht ist sind mit für auf von
    zu wie was wo bitte habe mein kann el la los este esta las un una que de del por para con y es
    está no mi cómo quiero tengo le les des du une et est pour dans avec je vous nous mon ma où pas
    comment
    il lo gli che di per non sono ho come è o os as um uma em não meu como quero het een van ik niet
    en voor mijn hoe wat jest nie się na do jak mam
""") - _set("a am as come do me no om per was")
_SHARED = _set("a am do in me no on")
"""Words of English and of one of the others: they tell nothing."""
_LATIN_ENDS = "\u024f"


def bounded(text: str) -> str:
    """Return what is judged of a text."""
    return text[:MAX_CHARACTERS]


def words(text: str) -> list[str]:
    """Return the words and numbers of a text: lower case, no apostrophes, `dont` for `don't`."""
    return _WORD.findall(bounded(text).translate(_APOSTROPHES).lower())


def sentences(text: str) -> list[str]:
    """Return the sentences and lines of a text, each with its closing marks."""
    return [found for found in map(str.strip, _SENTENCE.findall(bounded(text))) if found]


def is_content(word: str) -> bool:
    """Tell whether a word can be what a text is about."""
    plain = word in FUNCTION_WORDS or word in CHAT_WORDS
    return not plain and not word[0].isdigit() and len(word) > 1


def is_english(found: list[str]) -> bool:
    """Tell whether words may be English: as many of its function words as of other languages.

    A text of too few words to tell may be.
    """
    english = sum(word in FUNCTION_WORDS and word not in _SHARED for word in found)
    foreign = sum(word in _FOREIGN_WORDS or word[0] > _LATIN_ENDS for word in found)
    return english >= foreign


@lru_cache(maxsize=16_384)
def stem(word: str) -> str:
    """Return the Snowball stem of an English word: `cancel` of `cancellation`.

    A stemmer of its own for each word not seen yet: a stemmer keeps what it works on, and threads
    share this module.
    """
    if len(word) > _STEMMABLE:
        return word
    stemmed: str = EnglishStemmer().stemWord(word)
    return stemmed


def stems(found: list[str]) -> frozenset[str]:
    """Return the stems of the words that are not grammar; of all where all are."""
    carrying = [word for word in found if word not in FUNCTION_WORDS]
    return frozenset(map(stem, carrying or found))


_OPENERS = _set("""
    what whats when where wheres which who whos whose why how can could would will do does did is
    are am was were has have should may
""")


def is_question(text: str) -> bool:
    """Tell whether a text asks something: by its mark, or by the word that it begins with."""
    if "?" in bounded(text):
        return True
    first = _WORD.search(bounded(text).translate(_APOSTROPHES).lower())
    return first is not None and first.group() in _OPENERS
