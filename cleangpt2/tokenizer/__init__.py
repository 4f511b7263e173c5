"""Part 1: text to token ids and back, and how a vocabulary is learned.

Start with ``bpe``, the whole algorithm in readable Python; ``tokenizer`` is what the rest of the
package uses. No torch in here.
"""

from cleangpt2.tokenizer.pieces import Piece
from cleangpt2.tokenizer.streaming import StreamDecoder
from cleangpt2.tokenizer.tokenizer import Tokenizer
from cleangpt2.tokenizer.vocabulary import Vocabulary

__all__ = ["Piece", "StreamDecoder", "Tokenizer", "Vocabulary"]
