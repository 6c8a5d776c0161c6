"""The Penn Treebank tokenizer of the COCO caption scorer (Stanford CoreNLP 3.4.1's PTBTokenizer), in Python.

Like the official tokenizer it is a table of token classes. At each position of the text the class with the longest
match wins; of two equally long matches, the earlier class. Text that must follow a token counts as part of the match's
length. The classes and the abbreviations were checked against the official program and cover only the tokens that
scores depend on: quotes, dashes and full stops are dropped afterwards, so that their kinds are not distinguished.
Addresses, markup, telephone numbers and emoticons follow simpler rules than the official ones.

The official tokenizer reads all captions as one text, and one class matches across the line break: a caption that ends
in a single letter and a full stop loses the full stop where the next caption begins with a word such as "The". This
module reads the captions as one text too, so that the tokens are the official ones.
"""

import re
from collections.abc import Iterator, Sequence

# Numerals that `re` counts as letters.
_NUMERAL = r"[\xb2\xb3\xb9\xbc-\xbe\u2070-\u209f\u2150-\u218b\u2460-\u24ff\u2776-\u2793\u3192-\u32ff]"
_LETTER = rf"(?:(?!{_NUMERAL})[^\W\d_]|[\xad\u0300-\u036f])"
_ALNUM = rf"(?:(?!{_NUMERAL})[^\W_]|[\xad\u0300-\u036f])"
_BLANK = r"[ \t\xa0\u2000-\u200a\u3000\n]"
_APOS = "(?:['\x92\u2019]|&apos;)"
_QUOTE = "(?:['\x92\u2019`\x91\u2018\u201b]|&apos;)"  # characters used as an apostrophe inside a word
_NUMBER = r"(?:\d+(?:[.:,\xad]\d+)*|(?:[.:,]\d+)+)"
_WORD = rf"{_LETTER}{_ALNUM}*(?:[.!?]{_LETTER}{_ALNUM}*)*"
_HYPHEN = r"[-\u058a\u2010\u2011]"
_ELISION = rf"(?:[dol]{_QUOTE}{_ALNUM})?"
_PART = rf"{_ELISION}{_ALNUM}+(?:_{_ELISION}{_ALNUM}+)*"
_DECIMAL = r"\d+(?:[.,]\d+)*"
_JOINED = rf"(?:{_DECIMAL}(?!\w)|{_PART}|{_DECIMAL})(?:{_HYPHEN}{_PART})*"  # t-shirt, 3.5-inch, 5ft
_INITIALS = r"(?-i:[A-Z]+(?:(?:&amp;|[&+])[A-Z]+)+)"  # AT&T
_DOTTED = r"[A-Za-z](?:\.[A-Za-z])*"
_SIDE = r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"
# Abbreviations that may end a sentence: the official program reads two more characters before it accepts one.
_ENDING = "|".join(
    """
    ala? apr ariz assn aug bancorp bhd bldg blvd bros calif cos? colo? conn corp ct dak dec ed.d esq est etc ext feb fla
    fri ga inc ind intl jan jr jul jun kans? ky ltd mar md mich minn mon mont mo neb nev nov oct okla penn ph.d plc
    p?pt[ey]s? rd rt sept? seq sq sr sys tel tenn thurs thu tues tue univ va vt wed wisc? wyo (?-i:A)z (?-i:A)rk
    (?-i:D)el (?-i:I)ll (?-i:L)a (?-i:M)ass (?-i:M)iss (?-i:O)re (?-i:P)a (?-i:T)ex (?-i:W)ash
    """.replace(".", r"\.").split()
)
_LEADING = "|".join(
    """
    a.k.a adj adm adv alex assoc asst attys? ave brig capt cf cie cmdr col comdr cpl dept det drs? elec ens ft gen govs?
    hon insp invt jos lieut lt maj messrs m[ft]g mlle mme mrs? msgr ms mt natl pfc ph pres profs? pvt reps? rev sens?
    sfc sgt spc ste? supts? treas vs wm
    """.replace(".", r"\.").split()
)
_BEFORE_NUMBERS = "ca|figs?|prop|nos?|art|bldg|pp|op"
# First words of a caption before which a single letter's full stop ends the caption before it.
_SENTENCE_STARTS = "A|An|At|But|He|In|It|She|Some|That|The|There|These|They|This|We|You"
# One token with its apostrophe: whole words, elisions ("l'eau"), and words such as "hors d'oeuvre" and "Ho'ohu".
_WHOLE = "|".join(
    ["c'est", "c'mon", "cap'n", "cont'd", "e'er", "ev'ry", "li'l", "nat'l", "nor'easter", "o'o", "s'mores"]
)
_CUT = rf"{_APOS}(?:n{_APOS}?|em|till?|cause|[2-9]0s)|(?:[djl]|ol|dunkin|somethin){_APOS}"
_VOWELS = rf"{_LETTER}+[aeiouy]{_QUOTE}(?-i:[A-Zaeiou]){_LETTER}*|(?-i:[A-HJ-XZn]){_QUOTE}{_LETTER}{{2,}}"
# Addresses, markup and names of files are rare in captions: these are simpler than the official classes.
_MARKUP = r"</?[A-Za-z][^<>\n]*>"
_URL = r"https?://[^\s<>]*[\w/]"
_HOST = r"(?:[a-z][a-z0-9-]*\.)+(?:com|edu|net|org)\b"
_MAIL = r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
_FILE = rf"{_ALNUM}+\.(?:doc|exe|gif|html|jpe?g|mp3|pdf|png|txt|zip)"
# Characters that are a token by themselves. A character that belongs to no token is dropped, as in the original.
_SYMBOL = (
    "[-./*,;:!?%&~^|\\\\+=@#_$()\\[\\]{}<>\"'`\x80-\x84\x86\x87\x89\x91-\x99\xa1-\xac\xae-\xb4\xb6-\xb9\xbb\xbf\xd7\xf7"
    "\u037e\u0387\u2013-\u2023\u2026\u2030-\u203b\u203e-\u2042\u2044\u2070\u2074-\u207e\u2080-\u208e\u20a0\u20a4\u20ac"
    "\u2100-\u214f\u2190-\u2bff\u3001\u3002\u3012\u30fb\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
    "\uffe0\uffe1\uffe5\uffe6]"
)
# The group of each class is the token; the pattern after the group is context.
_CLASSES = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(can)not",
        rf"({_APOS}t)(?:is|was)|(gon)na|(got)ta|(lem)me|(gim)me|(wan)na",
        rf"(?P<raw>{_MARKUP}|{_URL}|{_HOST}|{_MAIL})",
        rf"({_WORD}){_APOS}(?:re|ve|ll|[msd])",
        rf"([a-z\xad]*(?![Nn])[A-Za-z]\xad*)n{_QUOTE}t",
        rf"({_WORD})",
        rf"(?P<raw>{_WHOLE}|{_CUT}|{_VOWELS})|(y{_APOS}){_LETTER}",
        rf"(\#{_LETTER}+|@[a-z_][a-z0-9_]*)",
        rf"({_APOS}(?:re|ve|ll|[msd])|n{_QUOTE}t)[^a-z]",
        r"(\d{1,2}[-/]\d{1,2}[-/]\d{2,4})",
        rf"([-+]?{_NUMBER})",
        r"((?:\d{1,4}[- \xa0])?\d{1,4}(?:\\?/|\u2044)\d{1,4})",
        r"([\xbc-\xbe\u2153-\u215e])",
        r"(-(?:[lr][rcs]b)-|pro-|anti-)",
        rf"({_SIDE}(?:\\?/{_SIDE}){{1,2}})",
        r"((?-i:[A-Z])*\$)",
        rf"([A-Za-z])\.{_BLANK}+(?-i:{_SENTENCE_STARTS}){_BLANK}",
        rf"((?:{_BEFORE_NUMBERS})\.){_BLANK}?\d",
        rf"((?:{_ENDING})\.)(?:[^\n]{{2}})?",
        rf"((?:{_LEADING}|{_DOTTED}|non-U\.S)\.)",
        rf"(?P<raw>{_APOS}\d\d){_BLANK}",
        rf"({_FILE})(?:{_BLANK}|[.,])",
        r"(c\+\+|[cf]#)",
        r"(?P<raw>(?-i:[:;]-?[()DP]))(?:[^a-z0-9]|$)",
        r"(---*|\.\.\.+|[?!]+|@+|\#+|_+|\*+|''|``)",
        r"([a-z0-9][a-z0-9.,\xad]*(?:-(?:[A-Za-z](?:\.[A-Za-z])+\.|[a-z0-9\xad]+))+)(?:[^a-z0-9+]|$)",
        rf"({_JOINED})",
        rf"({_INITIALS})",
        rf"((?:{_WORD}|{_JOINED}|{_INITIALS})\.)[,;:\u3001]",
        r"(&(?:amp|lt|gt|quot|apos|mdash|ndash|MD);|&\#[0-9]+;)",
        rf"(['`\x91\u2018]){_LETTER}[^\s]",
        r"([`\x82\x84\x91-\x94\xab\xbb\u2018-\u201f\u2039\u203a]{1,2})",
        rf"({_APOS}(?:re|ve|ll|[msd])|n{_QUOTE}t)",
        rf"({_SYMBOL})",
    )
]
_PLAIN_WORD = re.compile(r"[A-Za-z]+(?=[ \n])")
_SPLIT_WORDS = {"cannot", "gonna", "gotta", "lemme", "gimme", "wanna"}
_LONGEST_DASH = 4  # more hyphens stay as they are
_ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&apos;": "'", "&quot;": "''", "&mdash;": "--", "&ndash;": "--"}
_WRITTEN = {
    **{"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-", " ": "\xa0", "\xad": ""},
    **dict.fromkeys("\x92\x9b\u2019\u203a", "'") | dict.fromkeys("\x82\x8b\x91\u2018\u201b\u2039", "`"),
    **dict.fromkeys("\x93\u201c\xab", "``") | dict.fromkeys('\x94\u201d\xbb"', "''"),
    **dict.fromkeys("\x96\x97\u2013\u2014\u2015", "--") | dict.fromkeys("\x85\u2026", "..."),
    **{"\xa3": "#", "\u20ac": "$", "\x80": "$", "\xa4": "$", "\xa2": "cents"},
    **{"\xbc": "1/4", "\xbd": "1/2", "\xbe": "3/4", "\u2153": "1/3", "\u2154": "2/3"},
}


def tokenize_lines(lines: Sequence[str]) -> list[list[str]]:
    """Return the lower-cased tokens of each line, in order, as the official program prints them with `-lowerCase`.

    A token may contain a no-break space ("3 1/2" is one token), as in the original.

    Args:
        lines: captions without line breaks.
    """
    tokenized: list[list[str]] = [[]]
    for token in _tokens("\n".join(lines).replace("&nbsp;", " ") + "\n"):
        if token == "\n":
            tokenized.append([])
        else:
            tokenized[-1].append(token)
    return tokenized[:-1]


def _tokens(text: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        if (plain := _PLAIN_WORD.match(text, at)) and (word := plain[0].lower()) not in _SPLIT_WORDS:
            yield word
            at = plain.end()
        elif text[at] == "\n":
            yield "\n"
            at += 1
        else:
            end, token_end, raw = at, at + 1, False
            for token_class in _CLASSES:
                match = token_class.match(text, at)
                if match and match.end() > end:
                    end, token_end, raw = match.end(), match.end(match.lastindex or 0), match.lastgroup == "raw"
            if end > at:
                yield _written(text[at:token_end].lower(), raw)
            at = token_end


def _written(token: str, raw: bool) -> str:
    """Return a token as the official program prints it: entities, brackets, quotes, fractions and currencies."""
    if raw:
        return token.replace("(", "-lrb-").replace(")", "-rrb-").replace(" ", "\xa0")
    if token.startswith("..."):
        return "..."
    if token.startswith("--"):
        return "--" if len(token) <= _LONGEST_DASH else token
    for entity, character in _ENTITIES.items():
        token = token.replace(entity, character)
    return "".join(_WRITTEN.get(character, character) for character in token)
