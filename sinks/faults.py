"""What ClickHouse said of a row that it will never take, without anything of the row.

Its messages quote values, some of them without quotation marks, so that no text can be cut out of
them. Kept is what stands where no value can: a constraint and its table at the beginning, and at
the end the columns, the views and the error's name. Before these ClickHouse always ends what it
says of a value with words of its own, or with a quotation mark that it escapes inside. The forms
are those of its releases 25 and 26; what is in another form is left out.
"""

import re

from schemas.dead_letters import MAX_DETAIL_CHARACTERS, detail_of

END_CHARACTERS = 4096
"""Of a message, which may hold a whole value, that are looked through for its end."""

_PART = r"(?:[A-Za-z_]\w{0,99}|`(?:[^`\\]|\\.){1,100}`)"
_NAME = rf"{_PART}(?:\.{_PART}){{0,2}}"
_ID = r"(?: \([0-9a-f-]{36}\))?"

_CONSTRAINT = re.compile(
    r"[\w ,]+: \d+, server response: (?:Code: \d+\. DB::Exception: )+"
    rf"(Constraint {_PART} for table {_NAME}){_ID} is violated at row \d"
)
_VIEW = rf": while (pushing to view {_NAME}){_ID}"
_END = re.compile(
    rf"(?:: while (?P<columns>converting source column {_NAME} to destination column {_NAME})"
    r": while executing 'FUNCTION _CAST\((?:(?!while ).)*')?"
    rf"(?P<views>(?:{_VIEW})*)"
    r"(?:\. \((?P<error>[A-Z][A-Z0-9_]*)\) \(version [\w.-]+(?: \([\w -]+\))?\))+"
    r"(?: \(for url [^\s()]*\))?\Z"
)


def fault_of(error: BaseException) -> str:
    """Return the code and name of an error of ClickHouse, and what it failed in, in one line.

    Such as `DatabaseError: code 6, CANNOT_PARSE_TEXT, pushing to view openbat.of_mine`. Of views
    that feed each other the one that failed comes first.

    Args:
        error: clickhouse-connect's, with the whole message: of one that was cut the end might be a
            value's. Of any other error, what `detail_of` says.

    """
    code = getattr(error, "code", None)
    if not isinstance(code, int):
        return detail_of(error)
    text = str(error)
    said = [f"{type(error).__name__}: code {code}"]
    end = _END.search(text[-END_CHARACTERS:])
    if end:
        said.append(end["error"])
    constraint = _CONSTRAINT.match(text)
    if constraint:
        said.append(constraint[1])
    if end:
        said += filter(None, [end["columns"], *re.findall(_VIEW, end["views"])])
    return " ".join(", ".join(said).split())[:MAX_DETAIL_CHARACTERS]
