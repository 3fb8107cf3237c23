"""Kinds of values that the release before does not know, beside those that both releases know."""

from openbat.spending import tally_codec
from schemas.analyses import analyses_codec
from streams.analysis import found_codec
from streams.context import context_codec
from tests.upgrade.formats import FORMATS, Format

NEW_FORMATS = {
    "analyses": Format(analyses_codec),
    "changelog-context": Format(context_codec),
    "changelog-found": Format(found_codec),
    "spending": Format(tally_codec),
}

EVERY_FORMAT = FORMATS | NEW_FORMATS
