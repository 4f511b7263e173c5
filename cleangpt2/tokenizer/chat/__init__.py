"""Conversations to token ids, and which of them a model is to learn.

``template`` is what fine-tuning, RLHF, chat and serving use; ``builtin`` holds the formats that
need no file, as the Jinja programs that transformers and vLLM run.
"""

from cleangpt2.tokenizer.chat.messages import ROLES, Message
from cleangpt2.tokenizer.chat.template import ChatTemplate, Encoded, load_template

__all__ = ["ROLES", "ChatTemplate", "Encoded", "Message", "load_template"]
