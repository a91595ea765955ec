"""XML from outside: no entities, no document types, nothing from the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomvision_hub.literature.sites import ArticleError

if TYPE_CHECKING:
    from lxml.etree import _Element


def parse_xml(content: bytes, what: str, *, step: str) -> _Element:
    """Return the root of an XML document.

    Parameters
    ----------
    content
        The document.
    what
        What it is, for the message.
    step
        Of the `ArticleError`.

    Raises
    ------
    ArticleError
        When it is no well-formed XML or declares a document type, which neither Atom nor OAI-PMH has and
        which entity bombs need.
    """
    from lxml import etree

    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(content, parser)
    except (etree.XMLSyntaxError, ValueError) as problem:
        reason = " ".join(str(problem).split())[:200]
        raise ArticleError(f"{what} is no well-formed XML: {reason}", step=step) from None
    if root.getroottree().docinfo.internalDTD is not None:
        raise ArticleError(f"{what} declares a document type; refused", step=step)
    return root
