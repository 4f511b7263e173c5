"""Text of strangers as harmless HTML."""

import html

# HTML has no place for control characters; Unicode has a picture of each below 32 and of 127.
_HARMLESS = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"}
_HARMLESS |= dict.fromkeys((*range(0x80, 0xA0), *range(0xD800, 0xE000)), "\ufffd")
_HARMLESS[0x7F] = "\u2421"


def escape(text: object, most: int = 200) -> str:
    r"""`text` as HTML shows it, cut to `most` characters; for content and for quoted attributes.

    >>> escape('<b class="x">\x00')
    '&lt;b class=&quot;x&quot;&gt;␀'
    >>> escape("abcdef", most=4)
    'abc…'
    """
    text = str(text)
    if len(text) > most:
        text = text[: most - 1] + "…"
    return html.escape(text.translate(_HARMLESS))
