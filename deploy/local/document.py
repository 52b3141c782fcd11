"""The page that the demo signs. Its text is left readable in the file, so that one letter can be changed later."""

from datetime import datetime
from io import BytesIO

from reportlab import rl_config
from reportlab.lib.pagesizes import A4
from reportlab.pdfgen.canvas import Canvas

AGREED = b"100,000 yen"
FORGED = b"900,000 yen"

_LINES = (
    "This page was made and signed by `./rakkan demo`, on one machine, for you to look at.",
    "",
    "The key that signed it was made in an HSM (SoftHSM here) and cannot leave it in clear.",
    "The certificate was issued by the local certification authority of the demonstration.",
    "The signing client is pyHanko's own CSC client; it spoke to the gateway over the CSC API.",
    "",
    "To have something worth forging:",
    "    Hanako Yamada agrees to pay 100,000 yen for the delivery of ten ink stones.",
    "",
    "Change one letter of this file, and every validator will refuse the signature.",
)


def write_document(*, now: datetime) -> bytes:
    """A PDF of one page."""
    rl_config.useA85 = 0
    buffer = BytesIO()
    canvas = Canvas(buffer, pagesize=A4, pageCompression=0)
    canvas.setTitle("Rakkan: a signed page")
    canvas.setFont("Helvetica-Bold", 20)
    canvas.drawString(72, 760, "Rakkan")
    canvas.setFont("Helvetica", 11)
    for number, line in enumerate((f"Written on {now:%d %B %Y at %H:%M} UTC.", "", *_LINES)):
        canvas.drawString(72, 724 - 18 * number, line)
    canvas.showPage()
    canvas.save()
    return buffer.getvalue()


def forge(signed: bytes) -> bytes:
    """The document with one digit changed."""
    if signed.count(AGREED) != 1:
        raise ValueError("the sum does not stand in the document just once")
    return signed.replace(AGREED, FORGED)
