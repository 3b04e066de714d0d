//! Hand-made files, good and bad, and random damage to a good one.

use proptest::prelude::*;

use super::*;

fn file(header: &str, data: &[u8]) -> Vec<u8> {
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.as_bytes());
    out.extend(data);
    out
}

const GOOD: &str = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},
    "b\u0021":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]},"n":{"dtype":"I64","shape":[],"data_offsets":[32,40]}}"#;

#[test]
fn reads_what_was_written() {
    let data: Vec<u8> = (0..40).collect();
    let bytes = file(GOOD, &data);
    let parsed = TensorFile::parse(&bytes).unwrap();
    assert_eq!(parsed.names().collect::<Vec<_>>(), ["a", "b!", "n"]);
    let a = parsed.tensor("a").unwrap();
    assert_eq!((a.storage, a.shape.as_slice(), a.len), (Storage::Float(GgmlType::F32), [2, 3].as_slice(), 24));
    assert_eq!(bytes[a.start as usize..][..a.len], data[..24]);
    // The header alone says the same, of files of any length.
    let header = header_bytes(&bytes[..8]).unwrap();
    assert_eq!(header, bytes.len() - 40);
    let alone = TensorFile::parse_header(&bytes[..header], bytes.len() as u64).unwrap();
    assert!(alone.tensors().eq(parsed.tensors()));
    let short = TensorFile::parse_header(&bytes[..header - 1], bytes.len() as u64);
    assert_eq!(short.unwrap_err(), SafetensorsError::Truncated);
    assert_eq!(parsed.tensor("b!").unwrap().storage, Storage::Float(GgmlType::Bf16));
    assert_eq!(parsed.tensor("n").unwrap().storage, Storage::Other(8));
}

#[test]
fn bad_files_are_refused_with_the_reason() {
    let one = |dtype: &str, shape: &str, begin: u64, end: u64| {
        let entry = format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}}}"#);
        file(&entry, &[0; 64])
    };
    let two = |first: (u64, u64), second: (u64, u64), len: usize| {
        let entry = |name: &str, (begin, end): (u64, u64)| {
            format!(
                r#""{name}":{{"dtype":"U8","shape":[{}],"data_offsets":[{begin},{end}]}}"#,
                end.saturating_sub(begin)
            )
        };
        file(&format!("{{{},{}}}", entry("a", first), entry("b", second)), &vec![0; len])
    };
    let many: Vec<String> =
        (0..=MAX_TENSORS).map(|i| format!(r#""t{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#)).collect();
    let max = u64::MAX;
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("nothing", vec![], "cut short"),
        ("length cut", vec![1, 0, 0], "cut short"),
        ("header cut", file(GOOD, &[])[..40].to_vec(), "cut short"),
        ("endless header", max.to_le_bytes().to_vec(), "more than the limit"),
        ("header past the end", 50u64.to_le_bytes().to_vec(), "cut short"),
        ("not JSON", file("GGUF", &[]), "cannot be read"),
        ("not UTF-8", [&4u64.to_le_bytes()[..], b"{\"\xC3\x28"].concat(), "cannot be read"),
        ("not an object", file("[]", &[]), "object"),
        ("more than one value", file("{} {}", &[]), "trailing"),
        ("deep nesting", file(&format!("{{\"a\":{}", "[".repeat(100_000)), &[]), "cannot be read"),
        ("deep metadata", file(&format!("{{\"__metadata__\":{}", "[".repeat(100_000)), &[]), "cannot be read"),
        ("no shape", file(r#"{"a":{"dtype":"F32","data_offsets":[0,0]}}"#, &[]), "shape"),
        ("another type", one("Q4_0", "[16]", 0, 64), "Q4_0"),
        ("five dimensions", one("F32", "[1,1,1,1,16]", 0, 64), "more than 4 dimensions"),
        ("negative dimension", one("F32", "[-16]", 0, 64), "cannot be read"),
        ("product overflows", one("F32", "[4294967296,4294967296]", 0, 64), "as long as its shape"),
        ("bytes overflow", one("F32", "[9223372036854775807]", 0, 64), "as long as its shape"),
        ("shape too small", one("F32", "[15]", 0, 64), "as long as its shape"),
        ("past the end", one("F32", "[17]", 0, 68), "outside the file"),
        ("far past the end", one("F32", "[16]", max - 63, max), "outside the file"),
        ("end before begin", one("F32", "[16]", 64, 0), "outside the file"),
        ("begins late", one("F32", "[15]", 4, 64), "gap"),
        ("ends early", one("F32", "[15]", 0, 60), "4 bytes that belong to no tensor"),
        ("overlap", two((0, 32), (24, 64), 64), "over another"),
        ("the same place", two((0, 32), (0, 32), 32), "over another"),
        ("gap", two((0, 32), (40, 64), 64), "gap"),
        (
            "twice",
            file(
                r#"{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#,
                &[],
            ),
            "twice",
        ),
        ("too many", file(&format!("{{{}}}", many.join(",")), &[]), "more than 4096 tensors"),
        ("long name", file(&format!(r#"{{"{}":0}}"#, "x".repeat(MAX_NAME + 1)), &[]), "more than 1048576 bytes"),
    ];
    for (name, bytes, expect) in cases {
        let error = TensorFile::parse(&bytes).expect_err(name).to_string();
        assert!(error.contains(expect), "{name}: {error}");
    }
}

#[test]
fn every_cut_is_noticed() {
    let bytes = file(GOOD, &[7; 40]);
    for len in 0..bytes.len() {
        assert!(TensorFile::parse(&bytes[..len]).is_err(), "cut at {len}");
    }
}

proptest! {
    #[test]
    fn damage_never_panics(at in 0usize..400, value in any::<u8>(), run in 1usize..9) {
        let mut bytes = file(GOOD, &[7; 40]);
        let len = bytes.len();
        for i in 0..run {
            bytes[(at + i) % len] = value;
        }
        if let Ok(parsed) = TensorFile::parse(&bytes) {
            let total: usize = parsed.names().map(|name| parsed.tensor(name).unwrap().len).sum();
            prop_assert_eq!(total, 40);
        }
    }
}

#[test]
fn tensors_beyond_four_gibibytes_have_their_place() {
    let long = 5u64 << 30;
    let entry =
        |begin: u64, end: u64| format!(r#"{{"dtype":"U8","shape":[{}],"data_offsets":[{begin},{end}]}}"#, end - begin);
    let header = format!(r#"{{"a":{},"b":{}}}"#, entry(0, long), entry(long, long + 4));
    let bytes = file(&header, &[]);
    let parsed = TensorFile::parse_header(&bytes, bytes.len() as u64 + long + 4).unwrap();
    assert_eq!(parsed.tensor("b").unwrap().start, bytes.len() as u64 + long);
    assert!(TensorFile::parse_header(&bytes, bytes.len() as u64 + long + 3).is_err());
}
