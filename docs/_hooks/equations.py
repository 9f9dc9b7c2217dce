"""Hook that converts equations to MathML, which browsers render without scripts or fonts."""

import html
import re

from latex2mathml.converter import convert

_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
_BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)


def on_page_content(content: str, **_: object) -> str:
    """Replace the LaTeX that arithmatex has marked."""
    content = _INLINE.sub(lambda found: convert(html.unescape(found[1])), content)
    return _BLOCK.sub(
        lambda found: f'<div class="equation">{_block(html.unescape(found[1]))}</div>', content
    )


def _block(latex: str) -> str:
    return convert(latex.strip(), display="block")
