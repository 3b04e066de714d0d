//! Hand-made files, good and bad, and random damage to a good one.

use proptest::prelude::*;

use super::super::builder::Builder;
use super::*;

fn good() -> Vec<u8> {
    let metadata = Builder::header(2, 5)
        .str("general.architecture")
        .u32(8)
        .str("llama")
        .str("n")
        .u32(5)
        .u32(u32::MAX)
        .str("list")
        .u32(9)
        .u32(8)
        .u64(2)
        .str("a")
        .str("ü")
        .str("numbers")
        .u32(9)
        .u32(5)
        .u64(3)
        .u32(1)
        .u32(2)
        .u32(3)
        .str("x")
        .u32(6)
        .u32(1.5f32.to_bits());
    let tensors = metadata.tensor("a", &[32, 2], 2, 0).tensor("b", &[3], 0, 64);
    tensors.align(32).raw(&[7; 36]).raw(&[0; 28]).raw(&[1; 12]).0
}

#[test]
fn reads_what_was_written() {
    let bytes = good();
    let gguf = Gguf::parse(&bytes).unwrap();
    assert_eq!(gguf.get("general.architecture").and_then(Value::as_str), Some("llama"));
    assert_eq!(gguf.get("n"), Some(&Value::Int(-1)));
    assert_eq!(gguf.get("list").unwrap().as_array().unwrap().as_strs().unwrap(), ["a", "ü"]);
    let numbers = gguf.get("numbers").unwrap().as_array().unwrap();
    assert_eq!((numbers.len(), numbers.iter().filter_map(|v| v.as_u64()).sum::<u64>()), (3, 6));
    assert_eq!(gguf.get("x").and_then(Value::as_f64), Some(1.5));
    let (info, data) = gguf.tensor("a").unwrap();
    assert_eq!((info.dtype, info.dims.as_slice(), info.elements()), (GgmlType::Q4_0, [32, 2].as_slice(), 64));
    assert_eq!(data, [7; 36]);
    assert_eq!(gguf.tensor("b").unwrap().1, [1; 12]);
}

#[test]
fn bad_files_are_refused_with_the_reason() {
    let huge = u64::MAX;
    let one =
        |dims: &[u64], kind, offset| Builder::header(1, 0).tensor("t", dims, kind, offset).align(32).raw(&[0; 64]).0;
    let text = |b: Builder| b.raw(&[0; 64]).0;
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("nothing", vec![], "not a GGUF"),
        ("another format", b"PK\x03\x04abcdefgh".to_vec(), "not a GGUF"),
        ("version 1", Builder(b"GGUF".to_vec()).u32(1).u64(0).u64(0).0, "version 1"),
        ("version 4", Builder(b"GGUF".to_vec()).u32(4).u64(0).u64(0).0, "version 4"),
        ("big-endian", Builder(b"GGUF".to_vec()).u32(3u32.swap_bytes()).u64(0).u64(0).0, "big-endian"),
        ("big-endian, version 2", Builder(b"GGUF".to_vec()).u32(2u32.swap_bytes()).u64(0).u64(0).0, "big-endian"),
        (
            "a part of a split file",
            text(Builder::header(0, 2).str("split.count").u32(2).raw(&[3, 0]).str("split.no").u32(2).raw(&[1, 0])),
            "part 2 of 3 of a model that was split over several files (usually called …-00001-of-00003.gguf to",
        ),
        ("header cut", b"GGUF\x03\0\0\0\x01".to_vec(), "cut short"),
        ("tensor count", Builder::header(huge, 0).0, "the number of tensors"),
        ("metadata count", Builder::header(0, huge).0, "metadata entries"),
        ("key length", text(Builder::header(0, 1).u64(huge)), "length of a text"),
        ("key past the end", Builder::header(0, 1).u64(1 << 19).0, "cut short"),
        ("key not UTF-8", text(Builder::header(0, 1).u64(2).raw(&[0xC3, 0x28])), "UTF-8"),
        ("value type", text(Builder::header(0, 1).str("k").u32(13)), "type 13"),
        ("array of arrays", text(Builder::header(0, 1).str("k").u32(9).u32(9).u64(1)), "type 9"),
        ("array of nothing", text(Builder::header(0, 1).str("k").u32(9).u32(77).u64(0)), "type 77"),
        ("array count", text(Builder::header(0, 1).str("k").u32(9).u32(8).u64(huge)), "cut short"),
        ("array size overflow", text(Builder::header(0, 1).str("k").u32(9).u32(10).u64(huge / 8 + 2)), "cut short"),
        ("key twice", text(Builder::header(0, 2).str("k").u32(7).raw(&[1]).str("k").u32(7).raw(&[1])), "twice"),
        ("alignment 0", text(Builder::header(0, 1).str("general.alignment").u32(4).u32(0)), "alignment"),
        ("alignment 24", text(Builder::header(0, 1).str("general.alignment").u32(4).u32(24)), "alignment"),
        ("alignment is text", text(Builder::header(0, 1).str("general.alignment").u32(8).str("x")), "alignment"),
        ("five dimensions", one(&[1; 5], 0, 0), "dimensions"),
        ("no dimension", one(&[], 0, 0), "impossible shape"),
        ("zero dimension", one(&[32, 0], 2, 0), "impossible shape"),
        ("product overflows", one(&[1 << 40, 1 << 40], 0, 0), "impossible shape"),
        ("bytes overflow", one(&[1 << 62], 0, 0), "impossible shape"),
        ("half a block", one(&[33], 2, 0), "impossible shape"),
        ("another type", one(&[256], 16, 0), "IQ2_XXS"),
        ("no such type", one(&[1], 999, 0), "not known (type 999)"),
        ("IQ1_M", one(&[256], 29, 0), "IQ1_M"),
        ("TQ2_0", one(&[256], 35, 0), "TQ2_0"),
        ("MXFP4", one(&[32], 39, 0), "MXFP4"),
        ("offset not aligned", one(&[1], 0, 4), "alignment"),
        ("offset overflows", one(&[1], 0, huge - 31), "outside the file"),
        ("offset past the end", one(&[1], 0, 1 << 20), "outside the file"),
        ("data past the end", one(&[64], 0, 0), "outside the file"),
        (
            "overlap",
            Builder::header(2, 0).tensor("t", &[16], 0, 0).tensor("u", &[16], 0, 32).align(32).raw(&[0; 256]).0,
            "over another",
        ),
        (
            "tensor twice",
            Builder::header(2, 0).tensor("t", &[8], 0, 0).tensor("t", &[8], 0, 32).align(32).raw(&[0; 256]).0,
            "twice",
        ),
    ];
    for (name, bytes, expect) in cases {
        let error = Gguf::parse(&bytes).expect_err(name).to_string();
        assert!(error.contains(expect), "{name}: {error}");
    }
}

#[test]
fn what_files_in_the_wild_have() {
    // Version 2.
    let mut bytes = good();
    bytes[4] = 2;
    assert_eq!(Gguf::parse(&bytes).unwrap().tensors(), Gguf::parse(&good()).unwrap().tensors());
    // A model in one file may say that it was split into one.
    let one = Builder::header(0, 1).str("split.count").u32(2).raw(&[1, 0]).raw(&[0; 32]).0;
    assert!(Gguf::parse(&one).is_ok());
    // Many keys.
    let keys = (0..10_000u32).fold(Builder::header(0, 10_000), |b, n| b.str(&format!("k{n}")).u32(4).u32(n));
    let bytes = keys.raw(&[0; 32]).0;
    assert_eq!(Gguf::parse(&bytes).unwrap().get("k9999").and_then(Value::as_u64), Some(9999));
    // One text may be long.
    let long = "x".repeat(3 << 20);
    let with = |key: &str| Builder::header(0, 1).str(key).u32(8).str(&long).raw(&[0; 32]).0;
    let bytes = with("tokenizer.huggingface.json");
    let found = Gguf::parse(&bytes).unwrap().get("tokenizer.huggingface.json").and_then(Value::as_str).map(str::len);
    assert_eq!(found, Some(3 << 20));
    assert!(Gguf::parse(&with("tokenizer.chat_template")).unwrap_err().to_string().contains("length of a text"));
    // A template that is no text is none; any other text has to be one.
    let broken = |key: &str| {
        let mut bytes = Builder::header(0, 1).str(key).u32(8).str("text").raw(&[0; 32]).0;
        let at = bytes.windows(4).rposition(|four| four == b"text").unwrap();
        bytes[at] = 0xff;
        Gguf::parse(&bytes).map(|gguf| gguf.get(key).is_some())
    };
    assert_eq!(broken("tokenizer.chat_template").ok(), Some(false));
    assert!(matches!(broken("general.name"), Err(GgufError::Utf8)));
}

#[test]
fn lists_of_equal_numbers_are_one() {
    let list = |numbers: &[u32]| {
        let b = Builder::header(0, 1).str("l").u32(9).u32(4).u64(numbers.len() as u64);
        numbers.iter().fold(b, |b, number| b.u32(*number)).raw(&[0; 32]).0
    };
    for (numbers, expect) in [(&[7, 7, 7][..], Some(7)), (&[7], Some(7)), (&[7, 8], None), (&[], None)] {
        let bytes = list(numbers);
        let gguf = Gguf::parse(&bytes).unwrap();
        assert_eq!(gguf.get("l").unwrap().single().and_then(|value| value.as_u64()), expect, "{numbers:?}");
    }
    assert_eq!(Value::Bool(true).single(), Some(Value::Bool(true)));
}

#[test]
fn a_header_is_enough_to_know_the_places() {
    let bytes = good();
    let whole = Gguf::parse(&bytes).unwrap();
    let data_start = whole.tensors().values().map(|info| info.start).min().unwrap() as usize;
    let mut enough = 0;
    for len in 4..=data_start {
        match Gguf::parse_header(&bytes[..len], bytes.len() as u64) {
            Ok(header) => {
                assert_eq!((header.tensors(), header.metadata()), (whole.tensors(), whole.metadata()));
                assert!(header.tensor("a").is_none());
                enough += 1;
            }
            Err(error) => assert!(error.wants_more() && enough == 0, "{len}: {error}"),
        }
    }
    assert!(enough > 0);
    assert!(!Gguf::parse_header(&bytes, bytes.len() as u64 - 1).unwrap_err().wants_more());
    // A tensor beyond what 32 bits can address.
    let far = Builder::header(1, 0).tensor("t", &[8], 0, 1 << 33).align(32).0;
    let header = Gguf::parse_header(&far, (1 << 33) + 4096).unwrap();
    assert!(header.tensors()["t"].start > u64::from(u32::MAX));
    assert!(Gguf::parse_header(&far, 1 << 33).is_err());
}

#[test]
fn every_cut_is_noticed() {
    let bytes = good();
    for len in 0..bytes.len() {
        assert!(Gguf::parse(&bytes[..len]).is_err(), "cut at {len}");
    }
}

proptest! {
    #[test]
    fn damage_never_panics(at in 0usize..400, value in any::<u8>(), run in 1usize..9) {
        let mut bytes = good();
        let len = bytes.len();
        for i in 0..run {
            bytes[(at + i) % len] = value;
        }
        if let Ok(gguf) = Gguf::parse(&bytes) {
            for name in gguf.tensors().keys() {
                let (info, data) = gguf.tensor(name).unwrap();
                prop_assert_eq!(info.len, data.len());
            }
        }
    }

    #[test]
    fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Gguf::parse(&Builder::header(3, 3).raw(&noise).0);
    }
}
