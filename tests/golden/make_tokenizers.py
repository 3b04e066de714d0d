"""Writes tests/golden/tokenizers: two small vocabularies as GGUF files without weights, and how llama.cpp cuts texts with them.

    VENV/bin/pip install gguf==0.19.0 sentencepiece==0.2.3 tokenizers==0.23.3 llama-cpp-python==0.3.36
    VENV/bin/python tests/golden/make_tokenizers.py

spm.gguf is a SentencePiece model of the BPE kind with byte fallback, as Llama 2, TinyLlama and Mistral have; bpe.gguf a
byte-level BPE as Llama 3, Qwen and SmolLM have. golden.json has, for spm and for every scheme of cutting text before BPE
("pre"), the texts with llama.cpp's token ids (special tokens are recognised in the text, a beginning is added where the
file or the scheme asks for one) and the text that llama.cpp makes of the ids of the SentencePiece model.
"""

import io
import json
import random
import tempfile
from pathlib import Path

import gguf
import llama_cpp
import sentencepiece
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

OUT = Path(__file__).parent / "tokenizers"

CORPUS = [
    "A base station serves several users, and each of them decides how much of a task it keeps and how much it sends.",
    "The capital of Kenya is Nairobi. Its currency is the shilling, and 1 shilling is worth 100 cents.",
    "It's what they'd said: we've 3 apples, 12 pears, 345 plums and 6789 nuts; isn't that enough?",
    "def area(width, height):\n    if width < 0 or height < 0:\n        raise ValueError('negative')\n    return width * height\n",
    "Zürich liegt an der Limmat, Genève au bord du lac, 東京は日本の首都です。 Привет, мир! שלום 🦀🦀",
    "x = (a + b) * c / 2.5e-3; y != z && !done || count++ >= 10\n\n\n\tTabs\tand   spaces   \r\nnew line",
    "iPhone, HTTPServer, camelCase, SNAKE_CASE, kebab-case, e.g. U.S.A., foo/bar, https://x.y/z?q=1#top",
]
TEXTS = CORPUS + [
    "", " ", "  ", "\n", " a", "a ", "hello world", "Hello  World", "we'LL I'M YOU'RE", "12345678", "a1b22c333", "\u00a0\u3000x",
    "naïve café", "ﬁne ½ Ⅷ ²", "<s>", "</s> tail", "x<s>y", "<|end|>after", "before <|end|>", "▁ ▁▁x", "é\u0301ạ", "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\x00\x01\x7f", "<0x41>", "aaaaaaaaaaaa", "the the the the", "/////", "...!?", "\t\t\n \n  \n", "Ünïcödé ÀÉÎ", "ǅ ǈ Ω ß ẞ",
]
PRES = ["default", "gpt-2", "llama-bpe", "qwen2", "smollm", "smaug-bpe", "tekken", "deepseek-r1-qwen"]


def noise(rng):
    pool = list("abcdefgh   ABC 0123456789.,'\"!?-_/\\\n\t") + ["the ", "'s", "'LL", "é", "東", "京", "🦀", "\r\n", "ß", "  "]
    return "".join(rng.choice(pool) for _ in range(rng.randrange(1, 60)))


def writer(path, model):
    w = gguf.GGUFWriter(path, "llama")
    w.add_context_length(64)
    w.add_embedding_length(32)
    w.add_block_count(1)
    w.add_feed_forward_length(32)
    w.add_head_count(1)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_tokenizer_model(model)
    return w


def close(w):
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def spm(path):
    buffer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 3), model_writer=buffer, vocab_size=560, model_type="bpe", byte_fallback=True,
        character_coverage=0.98, normalization_rule_name="identity", remove_extra_whitespaces=False,
        split_digits=True, allow_whitespace_only_pieces=True, num_threads=1,
    )
    sp = sentencepiece.SentencePieceProcessor(model_proto=buffer.getvalue())
    tokens, scores, kinds = [], [], []
    for i in range(len(sp)):
        tokens.append(sp.id_to_piece(i).encode())
        scores.append(sp.get_score(i))
        kinds.append(2 if sp.is_unknown(i) else 3 if sp.is_control(i) else 6 if sp.is_byte(i) else 1)
    tokens += [b"<|end|>"]
    scores += [-1000.0]
    kinds += [3]
    w = writer(path, "llama")
    w.add_token_list(tokens)
    w.add_token_scores(scores)
    w.add_token_types(kinds)
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_unk_token_id(0)
    close(w)


def bpe_lists():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    trainer = trainers.BpeTrainer(vocab_size=520, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(CORPUS, trainer)
    state = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(state["vocab"], key=state["vocab"].get)
    merges = [" ".join(m) for m in state["merges"]]
    # Words that no merge makes: schemes that ignore merges take them whole.
    tokens += ["shillings", "Ġplum"]
    return tokens + ["<s>", "</s>", "<|end|>"], merges


def bpe(path, tokens, merges, pre):
    w = writer(path, "gpt2")
    w.add_tokenizer_pre(pre)
    w.add_token_list(tokens)
    w.add_token_types([3 if i >= len(tokens) - 3 else 1 for i in range(len(tokens))])
    w.add_token_merges(merges)
    w.add_bos_token_id(len(tokens) - 3)
    w.add_eos_token_id(len(tokens) - 2)
    close(w)


def cut(path, texts, back):
    llama = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    out = []
    for text in texts:
        ids = llama.tokenize(text.encode(), add_bos=True, special=True)
        entry = dict(text=text, ids=ids)
        if back:
            entry["back"] = llama.detokenize(ids, special=False).decode(errors="replace")
        out.append(entry)
    return out


def main():
    OUT.mkdir(exist_ok=True)
    rng = random.Random(7)
    texts = TEXTS + ["shillings plum plums shilling"] + [noise(rng) for _ in range(40)]
    spm(OUT / "spm.gguf")
    golden = dict(spm=cut(OUT / "spm.gguf", texts, True), bpe={})
    tokens, merges = bpe_lists()
    with tempfile.TemporaryDirectory() as folder:
        for pre in PRES:
            path = Path(folder) / "bpe.gguf"
            bpe(path, tokens, merges, pre)
            golden["bpe"][pre] = [entry["ids"] for entry in cut(path, texts, False)]
    bpe(OUT / "bpe.gguf", tokens, merges, "gpt-2")
    (OUT / "golden.json").write_text(json.dumps(golden, ensure_ascii=False).replace('{"text"', '\n{"text"').replace("]],", "]],\n") + "\n")
    for file in sorted(OUT.iterdir()):
        print(file.name, file.stat().st_size)
    same = {pre: sum(a == b for a, b in zip(golden["bpe"][pre], golden["bpe"]["gpt-2"])) for pre in PRES}
    print(f"{len(texts)} texts; cut as gpt-2 does:", same)


main()
