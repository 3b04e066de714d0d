//! Sound inputs, small enough that a damage is likely to hit something that matters.

use engine::gguf::GgmlType;
use engine::gguf::write::{MetaValue, Writer};

/// The config that belongs to the safetensors seeds.
pub const CONFIG: &str = r#"{"model_type":"qwen3","vocab_size":6,"hidden_size":4,"num_hidden_layers":1,
    "num_attention_heads":2,"num_key_value_heads":1,"head_dim":2,"intermediate_size":3,"max_position_embeddings":16,
    "rms_norm_eps":1e-5,"tie_word_embeddings":true,"rope_parameters":{"rope_type":"yarn","rope_theta":100.0,"factor":2.0}}"#;

/// The seeds of the target `name`.
pub fn of(name: &str) -> Vec<Vec<u8>> {
    match name {
        "gguf" => ["llama", "qwen2", "qwen3", "smollm3", "gemma2", "gemma3"]
            .map(model)
            .into_iter()
            .chain([tokens("gpt2")])
            .collect(),
        "safetensors" => vec![safetensors(false), safetensors(true), CONFIG.into()],
        "tokenizer" => vec![tokens("gpt2"), tokens("llama")],
        "tokenizer_json" => TOKENIZERS.iter().map(|text| text.as_bytes().to_vec()).collect(),
        "folder" => TOKENIZERS.iter().map(|tokenizer| folder(tokenizer)).collect(),
        _ => TEMPLATES.iter().map(|text| text.as_bytes().to_vec()).collect(),
    }
}

fn model(arch: &str) -> Vec<u8> {
    let mut w = Writer::new();
    w.meta("general.architecture", MetaValue::Str(arch.into()));
    for (key, value) in [
        ("embedding_length", 4),
        ("block_count", 1),
        ("feed_forward_length", 3),
        ("attention.head_count", 2),
        ("attention.head_count_kv", 1),
        ("attention.key_length", 2),
        ("attention.value_length", 2),
        ("rope.dimension_count", 2),
        ("context_length", 16),
        ("attention.sliding_window", 5),
        ("rope.scaling.original_context_length", 8),
    ] {
        w.meta(&format!("{arch}.{key}"), MetaValue::U32(value));
    }
    w.meta(&format!("{arch}.attention.layer_norm_rms_epsilon"), MetaValue::F32(1e-5));
    w.meta(&format!("{arch}.rope.freq_base"), MetaValue::F32(100.0));
    w.meta(&format!("{arch}.rope.scaling.factor"), MetaValue::F32(2.0));
    w.meta(
        &format!("{arch}.rope.scaling.type"),
        MetaValue::Str(if arch == "llama" { "linear" } else { "yarn" }.into()),
    );
    let mut tensor = |name: &str, dims: &[usize]| {
        let values: Vec<f32> = (0..dims.iter().product()).map(|i: usize| i as f32 * 0.1).collect();
        let dtype = if dims.len() == 2 { GgmlType::F16 } else { GgmlType::F32 };
        w.tensor(name, dims, dtype, &values).expect("the values fit");
    };
    tensor("token_embd.weight", &[4, 6]);
    tensor("output_norm.weight", &[4]);
    let parts: [(&str, &[usize]); 9] = [
        ("attn_norm.weight", &[4]),
        ("attn_q.weight", &[4, 4]),
        ("attn_k.weight", &[4, 2]),
        ("attn_v.weight", &[4, 2]),
        ("attn_output.weight", &[4, 4]),
        ("ffn_norm.weight", &[4]),
        ("ffn_gate.weight", &[4, 3]),
        ("ffn_up.weight", &[4, 3]),
        ("ffn_down.weight", &[3, 4]),
    ];
    for (part, dims) in parts {
        tensor(&format!("blk.0.{part}"), dims);
    }
    match arch {
        "llama" => tensor("rope_freqs.weight", &[1]),
        "qwen2" => {
            tensor("blk.0.attn_q.bias", &[4]);
            tensor("blk.0.attn_k.bias", &[2]);
            tensor("blk.0.attn_v.bias", &[2]);
        }
        "qwen3" => {
            tensor("blk.0.attn_q_norm.weight", &[2]);
            tensor("blk.0.attn_k_norm.weight", &[2]);
        }
        "gemma2" | "gemma3" => {
            tensor("blk.0.post_attention_norm.weight", &[4]);
            tensor("blk.0.post_ffw_norm.weight", &[4]);
            if arch == "gemma3" {
                tensor("blk.0.attn_q_norm.weight", &[2]);
                tensor("blk.0.attn_k_norm.weight", &[2]);
            }
        }
        _ => tensor("output.weight", &[4, 6]),
    }
    w.finish()
}

fn tokens(kind: &str) -> Vec<u8> {
    let words =
        ["<unk>", "<s>", "</s>", "<0x41>", "H", "i", "Hi", "\u{2581}", "t", "h", "th", "e", "the", "\u{2581}the", "1"];
    let mut w = Writer::new();
    w.meta("tokenizer.ggml.model", MetaValue::Str(kind.into()));
    w.meta("tokenizer.ggml.pre", MetaValue::Str("smollm".into()));
    w.meta("tokenizer.ggml.tokens", MetaValue::Strs(words.map(str::to_owned).to_vec()));
    w.meta("tokenizer.ggml.merges", MetaValue::Strs(["H i", "t h", "th e"].map(str::to_owned).to_vec()));
    // Scores as whole numbers: the reader takes any number.
    w.meta("tokenizer.ggml.scores", MetaValue::I32s((0..words.len() as i32).map(|i| -i).collect()));
    w.meta("tokenizer.ggml.token_type", MetaValue::I32s(vec![2, 3, 3, 6, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 4]));
    for (key, id) in [("bos_token_id", 1), ("eos_token_id", 2), ("unknown_token_id", 0)] {
        w.meta(&format!("tokenizer.ggml.{key}"), MetaValue::U32(id));
    }
    for key in ["add_bos_token", "add_eos_token", "add_space_prefix"] {
        w.meta(&format!("tokenizer.ggml.{key}"), MetaValue::Bool(true));
    }
    w.finish()
}

fn safetensors(half: bool) -> Vec<u8> {
    let shapes: [(&str, &[usize]); 13] = [
        ("model.embed_tokens.weight", &[6, 4]),
        ("model.norm.weight", &[4]),
        ("model.layers.0.input_layernorm.weight", &[4]),
        ("model.layers.0.post_attention_layernorm.weight", &[4]),
        ("model.layers.0.self_attn.q_proj.weight", &[4, 4]),
        ("model.layers.0.self_attn.k_proj.weight", &[2, 4]),
        ("model.layers.0.self_attn.v_proj.weight", &[2, 4]),
        ("model.layers.0.self_attn.o_proj.weight", &[4, 4]),
        ("model.layers.0.self_attn.q_norm.weight", &[2]),
        ("model.layers.0.self_attn.k_norm.weight", &[2]),
        ("model.layers.0.mlp.gate_proj.weight", &[3, 4]),
        ("model.layers.0.mlp.up_proj.weight", &[3, 4]),
        ("model.layers.0.mlp.down_proj.weight", &[4, 3]),
    ];
    let (dtype, width) = if half { ("BF16", 2) } else { ("F32", 4) };
    let (mut entries, mut end) = (vec![r#""__metadata__":{"format":"pt"}"#.to_owned()], 0);
    for (name, shape) in shapes {
        let begin = end;
        end += shape.iter().product::<usize>() * width;
        let dims: Vec<String> = shape.iter().map(usize::to_string).collect();
        let dims = dims.join(",");
        entries.push(format!(r#""{name}":{{"dtype":"{dtype}","shape":[{dims}],"data_offsets":[{begin},{end}]}}"#));
    }
    let header = format!("{{{}}}", entries.join(","));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.into_bytes());
    file.extend((0..end).map(|i| (i % 61) as u8));
    file
}

/// Files of each kind of model, with most kinds of parts.
const TOKENIZERS: [&str; 3] = [
    r#"{"version":"1.0","truncation":{"direction":"Right","max_length":4,"strategy":"LongestFirst","stride":1},
"padding":{"strategy":{"Fixed":9},"direction":"Right","pad_to_multiple_of":null,"pad_id":0,"pad_type_id":0,"pad_token":"H"},
"added_tokens":[{"id":7,"content":"<s>","single_word":false,"lstrip":true,"rstrip":true,"normalized":false,"special":true}],
"normalizer":{"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Replace","pattern":{"String":" "},"content":"_"},{"type":"Prepend","prepend":"_"}]},
"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"\\s+(?!\\S)|\\S{1,3}"},"behavior":"Isolated","invert":false},{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":false}]},
"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],"pair":[],"special_tokens":{"<s>":{"id":"<s>","ids":[7],"tokens":["<s>"]}}},
"decoder":{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"_"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]},
"model":{"type":"BPE","dropout":0.5,"unk_token":"H","continuing_subword_prefix":"","end_of_word_suffix":"","fuse_unk":false,"byte_fallback":true,"ignore_merges":false,
"vocab":{"H":0,"i":1,"Hi":2,"t":3,"h":4,"th":5,"_":6},"merges":[["H","i"],["t","h"]]}}"#,
    r#"{"version":"1.0","added_tokens":[{"id":4,"content":"</s>","single_word":true,"lstrip":false,"rstrip":false,"normalized":true,"special":false}],
"normalizer":{"type":"Sequence","normalizers":[{"type":"Nmt"},{"type":"Lowercase"}]},
"pre_tokenizer":{"type":"Metaspace","replacement":"_","prepend_scheme":"first","split":true},
"post_processor":{"type":"RobertaProcessing","sep":["</s>",4],"cls":["</s>",4],"trim_offsets":true,"add_prefix_space":false},
"decoder":{"type":"Metaspace","replacement":"_","prepend_scheme":"first","split":true},
"model":{"type":"Unigram","unk_id":0,"byte_fallback":false,"vocab":[["<unk>",0.0],["_h",-1.0],["i",-2.0],["t",-3.0]]}}"#,
    r###"{"version":"1.0","added_tokens":[{"id":1,"content":"[CLS]","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],
"normalizer":{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":null,"lowercase":true},
"pre_tokenizer":{"type":"BertPreTokenizer"},"decoder":{"type":"WordPiece","prefix":"##","cleanup":true},
"model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":100,
"vocab":{"[UNK]":0,"[CLS]":1,"hi":2,"there":3,"##s":4}}}"###,
];

fn folder(tokenizer: &str) -> Vec<u8> {
    let files = [
        CONFIG.as_bytes(),
        tokenizer.as_bytes(),
        br#"{"bos_token":{"content":"<s>"},"eos_token":"</s>","add_bos_token":true,"chat_template":[{"name":"default","template":"{{ messages }}"}]}"#,
        br#"{"eos_token_id":[1,2]}"#,
        br#"{"metadata":{"total_size":12},"weight_map":{"a":"m-1.safetensors","b":"m-2.safetensors"}}"#,
    ];
    files.join(crate::targets::CUT)
}

const TEMPLATES: [&str; 8] = [
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] | trim + '<|im_end|>\n' }}{% endfor %}\
     {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "{{- bos_token }}{% set ns = namespace(n=0, s='') %}{% for m in messages[1:] %}{% if loop.index0 % 2 == 1 %}\
     {{ raise_exception('order') }}{% endif %}{% set ns.n = ns.n + 1 %}{% if ns.n > 3 %}{% break %}{% endif %}{% endfor %}",
    "{%- macro turn(m, end='.') -%}<{{ m.role[:1] }}>{{ m.content.split(' ')[-1].strip() }}{{ end }}{%- endmacro -%}\
     {%- for m in messages if m.role != 'system' -%}{{- turn(m, end=';') -}}{%- endfor -%}",
    "{{ strftime_now('%d %b %Y') }}{{ messages | tojson(indent=2) }}{{ {'a': [1, 2.5, none]} | tojson }}",
    "{% generation %}{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{% endgeneration %}",
    "{% if messages[0].content is string and '</think>' in messages[-1].content %}{{ messages[-1].content.replace('a', 'b') }}\
     {% else %}{{ 'x' * 3 ~ range(4) | join(',') ~ loop is defined }}{% endif %}",
    "{% set ns = namespace(s='ab', l=[1]) %}{% for i in range(9) %}{% set ns.s = ns.s ~ ns.s %}{% set ns.l = ns.l + [ns.l[1:]] * 2 %}\
     {% endfor %}{{ ns.s | replace('a', ns.s) | indent(2) | length }}{{ ns.l | string | length }}{{ '%s%3d' | format('x', 7) }}",
    "{% set x %}{% for k, v in {'a': [1, (2, 3)]}.items() %}{{ k | upper }}{{ v | map('string') | list | sort | unique | reverse | tojson }}\
     {% endfor %}{% endset %}{{ x * 2 }}{{ dict(a=x, **{'b': 1}) | dictsort | groupby(0) | first | string | title }}{{ x[::-1] }}",
];
