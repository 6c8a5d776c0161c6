"""Tokenizers of a small LION that is trained from random weights; Flan-T5's and BERT's would be most of its size."""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

# The preset "tiny" relies on these ids (soft_prompt_token_id is 3).
_T5_SPECIAL = ["<pad>", "</s>", "<unk>", "<extra_id_0>"]
_BERT_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_PRINTABLE = [chr(code) for code in range(33, 127)]


def t5_vocabulary(texts: Iterable[str], vocab_size: int = 2048) -> PreTrainedTokenizerFast:
    """Return a tokenizer with T5's special tokens, for prompts, questions and answers like ``texts``.

    Each digit is one token, so that a coordinate takes as many tokens as it has digits. Every printable ASCII character
    has a token.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.Punctuation()]
    )
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=_T5_SPECIAL, initial_alphabet=[*_PRINTABLE, "▁"], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", _T5_SPECIAL.index("</s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens=["<extra_id_0>"],
        clean_up_tokenization_spaces=False,
    )


def bert_vocabulary(texts: Iterable[str], vocab_size: int = 2048) -> PreTrainedTokenizerFast:
    """Return an uncased tokenizer with BERT's special tokens, for the Q-Former and the tag encoder of a small LION."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=_BERT_SPECIAL, initial_alphabet=_PRINTABLE, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(token, _BERT_SPECIAL.index(token)) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
