"""What a larger model says of an item's picture: one of the hub by name, or behind a server by address.

The words go three ways: a view of the item's embedding, a line of the text prompt, and the thought that a smaller
model learns to think before it answers (paper 2, section 3.1, distils one too). That words about pictures serve a
recommender better than the pictures' own vectors was found on MicroLens by others (arXiv 2508.09789).
"""

import base64
import io
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from PIL import Image

from byway.base import config
from byway.base.errors import UserError
from byway.language import server
from byway.multimodal import prompts

LONGEST = 512
"""Pixels of the longer side that are sent."""

Caption = Callable[[Image.Image], str]


@contextmanager
def opened(settings: config.Media) -> Generator[Caption]:
    """What the settings name. Raises UserError where it cannot be loaded or reached."""
    if settings.captioner_url:
        with server.client(config.Answers(url=settings.captioner_url, model=settings.captioner)) as asked:
            yield lambda picture: said_by(asked, settings.captioner, picture)
    else:
        from byway.multimodal import hub

        yield hub.open_captioner(settings.captioner)


def said_by(asked: server.Server, model: str, picture: Image.Image) -> str:
    """One line about a picture, by chat."""
    file = io.BytesIO()
    picture.thumbnail((LONGEST, LONGEST))
    picture.convert("RGB").save(file, "JPEG", quality=90)
    address = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
    content: list[dict[str, Any]] = [
        {"type": "text", "text": prompts.ASKED_OF_A_PICTURE},
        {"type": "image_url", "image_url": {"url": address}},
    ]
    body = {
        "model": model,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": prompts.CAPTION_TOKENS,
    }
    said, _ = asked.post("/chat/completions", body | server.SAMPLING).said()
    if not said.strip():
        raise UserError(f"{model!r} says nothing of a picture; is it one that can be shown pictures?")
    return prompts.one_line(said)
