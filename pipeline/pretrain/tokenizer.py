"""The bundled reader's tokenizer: all bytes, and the fixed text of its answers as single tokens.

Any text can be written, one token a byte, so any schema and any grammar works; the stretches of
JSON that every receipt repeats cost one token each, so that nearly every step reads a character.
"""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, BOS, EOS, UNKNOWN = "<pad>", "<s>", "</s>", "<unk>"
IMAGE, FAKE, END_OF_UTTERANCE = "<image>", "<fake_token_around_image>", "<end_of_utterance>"
RECEIPT, OCR = "<receipt>", "<ocr>"
"""What is asked of the page: the record of `receipt.v1`, or its text as `text.v1`."""

SPECIAL = (PAD, BOS, EOS, UNKNOWN, IMAGE, FAKE, END_OF_UTTERANCE, RECEIPT, OCR)

FRAGMENTS = (
    '{"merchant":"',
    '","date":"',
    '","items":[{"name":"',
    '","qty":',
    ',"price":',
    '},{"name":"',
    '}],"total":',
    *(f',"currency":"{code}"}}' for code in ("EUR", "USD", "GBP", "CHF")),
    '{"text":"',
    '"}',
    r"\n",
    "€",  # a pound sign is two bytes, one of which the byte alphabet writes as a pound sign
)


def build_tokenizer(max_length: int) -> PreTrainedTokenizerFast:
    """Return the tokenizer: special tokens, then `FRAGMENTS`, then the 256 bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate((*SPECIAL, *FRAGMENTS, *alphabet))}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    backend.add_tokens([AddedToken(t, special=False, normalized=False) for t in FRAGMENTS])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNKNOWN,
        additional_special_tokens=[FAKE, IMAGE, END_OF_UTTERANCE, RECEIPT, OCR],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=max_length,
    )
