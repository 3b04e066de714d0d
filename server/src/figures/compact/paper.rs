//! The paper's Table I, and what its rows compare.

/// As printed: backbone, method, hallucination, accuracy in percent, MB, Wh.
pub const TABLE: [(&str, &str, f64, f64, f64, f64); 15] = [
    ("Llama-3.1-8B", "original", 0.77, 70.30, 15316.53, 0.24),
    ("Llama-3.1-8B", "quantisation", 0.82, 24.99, 4308.13, 0.13),
    ("Llama-3.1-8B", "pruning", 0.70, 30.76, 13236.46, 0.27),
    ("Llama-3.1-8B", "pruning + distillation", 0.85, 62.11, 13236.46, 0.20),
    ("Llama-3.1-8B", "ECLD", 0.65, 59.05, 3336.18, 0.12),
    ("Qwen3-8B", "original", 0.77, 68.21, 15623.45, 0.17),
    ("Qwen3-8B", "quantisation", 0.78, 67.51, 5792.20, 0.13),
    ("Qwen3-8B", "pruning", 0.66, 19.32, 11206.87, 0.11),
    ("Qwen3-8B", "pruning + distillation", 0.95, 37.01, 11206.87, 0.11),
    ("Qwen3-8B", "ECLD", 0.97, 36.35, 4652.80, 0.09),
    ("Mistral-12B", "original", 0.52, 65.95, 23360.83, 0.35),
    ("Mistral-12B", "quantisation", 0.94, 64.94, 7926.37, 0.29),
    ("Mistral-12B", "pruning", 0.80, 20.71, 16048.67, 0.32),
    ("Mistral-12B", "pruning + distillation", 0.84, 75.79, 16048.67, 0.26),
    ("Mistral-12B", "ECLD", 0.87, 71.88, 5660.25, 0.24),
];

/// What the table compares, as far as its sizes tell.
pub const WHAT: &str = "\
Its sizes (MiB) tell what the rows are: the pruned Llama has 27 of 32 layers and the pruned Qwen 24 of 36; the pruned Mistral
has the published NeMo-Minitron-8B's shape. The ECLD row of Llama has the size of Llama-3.1-Minitron-4B-Width at 4 bit,
*another* student than its pruning + distillation row. Llama's quantisation row is 4.5 bit everywhere, the others' 4.125 bit with
half-precision embeddings, so 24.99 % beside 67.51 % compares tool chains. The text's claim that ECLD beats quantisation alone
fails in the table itself for Qwen3 (36.35 < 67.51), and so does the lowest hallucination for Qwen3 and Mistral.
";
