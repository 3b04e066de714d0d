//! What a GGUF file's header says of the model beside its tensors: the file's type, and how large its maker calls it.

use engine::gguf::{Gguf, Value};

/// The name of a file's type, as its maker wrote it down: most of a "Q4_K_M" file's bytes may be of another type.
pub(super) fn file_type(gguf: &Gguf<'_>) -> Option<&'static str> {
    // llama.cpp's `llama_ftype`; the gaps are types that it has dropped.
    const NAMES: [(u64, &str); 38] = [
        (0, "F32"),
        (1, "F16"),
        (2, "Q4_0"),
        (3, "Q4_1"),
        (7, "Q8_0"),
        (8, "Q5_0"),
        (9, "Q5_1"),
        (10, "Q2_K"),
        (11, "Q3_K_S"),
        (12, "Q3_K_M"),
        (13, "Q3_K_L"),
        (14, "Q4_K_S"),
        (15, "Q4_K_M"),
        (16, "Q5_K_S"),
        (17, "Q5_K_M"),
        (18, "Q6_K"),
        (19, "IQ2_XXS"),
        (20, "IQ2_XS"),
        (21, "Q2_K_S"),
        (22, "IQ3_XS"),
        (23, "IQ3_XXS"),
        (24, "IQ1_S"),
        (25, "IQ4_NL"),
        (26, "IQ3_S"),
        (27, "IQ3_M"),
        (28, "IQ2_S"),
        (29, "IQ2_M"),
        (30, "IQ4_XS"),
        (31, "IQ1_M"),
        (32, "BF16"),
        (33, "Q4_0_4_4"),
        (34, "Q4_0_4_8"),
        (35, "Q4_0_8_8"),
        (36, "TQ1_0"),
        (37, "TQ2_0"),
        (38, "MXFP4_MOE"),
        (39, "NVFP4"),
        (40, "Q1_0"),
    ];
    let id = gguf.get("general.file_type")?.as_u64()?;
    NAMES.iter().find(|(known, _)| *known == id).map(|(_, name)| *name)
}

/// The parameters of a file that holds `stored` elements. Some makers store a head that is the embedding a second time, in
/// another type; the header does not say so, but for the size that it gives the model: the nearer number counts.
pub(super) fn unique_parameters(gguf: &Gguf<'_>, stored: u64) -> u64 {
    let elements = |name: &str| gguf.tensors().get(name).map(|info| info.elements() as u64);
    let (Some(embedding), Some(head)) = (elements("token_embd.weight"), elements("output.weight")) else {
        return stored;
    };
    let label = gguf.get("general.size_label").and_then(Value::as_str).and_then(labelled_size);
    let without = stored.saturating_sub(head);
    match label {
        Some(label) if head == embedding && label.abs_diff(without) < label.abs_diff(stored) => without,
        _ => stored,
    }
}

/// What a size label says, such as `0.5B` or `135M`; `None` for those of several experts (`8x7B`).
fn labelled_size(label: &str) -> Option<u64> {
    let (number, unit) = label.trim().split_at_checked(label.trim().len().checked_sub(1)?)?;
    let scale = match unit {
        "K" | "k" => 1e3,
        "M" | "m" => 1e6,
        "B" | "b" => 1e9,
        "T" | "t" => 1e12,
        _ => return None,
    };
    let number: f64 = number.parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0)?;
    Some((number * scale) as u64)
}

#[cfg(test)]
mod tests {
    use engine::gguf::GgmlType;
    use engine::gguf::write::{MetaValue, Writer};

    use super::*;

    #[test]
    fn a_head_that_is_stored_twice_counts_once_and_the_files_type_has_a_name() {
        let file = |label: Option<&str>, file_type: Option<u32>| {
            let mut writer = Writer::new();
            if let Some(label) = label {
                writer.meta("general.size_label", MetaValue::Str(label.to_owned()));
            }
            if let Some(file_type) = file_type {
                writer.meta("general.file_type", MetaValue::U32(file_type));
            }
            for (name, rows) in [("token_embd.weight", 5000), ("output.weight", 5000), ("blk.0.ffn_up.weight", 10_000)]
            {
                writer.tensor(name, &[32, rows], GgmlType::Q8_0, &vec![0.0; 32 * rows]).expect("a tensor");
            }
            writer.finish()
        };
        // 640,000 elements, of which 160,000 may be there twice.
        for (label, parameters) in [
            (Some("480K"), 480_000),
            (Some("0.5M"), 480_000),
            (Some("640K"), 640_000),
            (Some("0.6M"), 640_000),
            (Some("8x7B"), 640_000),
            (Some("large"), 640_000),
            (Some(""), 640_000),
            (None, 640_000),
        ] {
            let bytes = file(label, Some(15));
            let gguf = Gguf::parse(&bytes).expect("a file");
            assert_eq!(unique_parameters(&gguf, 640_000), parameters, "{label:?}");
            assert_eq!(file_type(&gguf), Some("Q4_K_M"));
        }
        for (id, name) in [(None, None), (Some(7), Some("Q8_0")), (Some(18), Some("Q6_K")), (Some(9999), None)] {
            assert_eq!(file_type(&Gguf::parse(&file(None, id)).expect("a file")), name);
        }
    }
}
