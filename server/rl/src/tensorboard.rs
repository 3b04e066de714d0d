//! Metrics as a TensorBoard event file: TFRecord frames around `Event` messages of Protocol Buffers, of which only the few
//! fields for scalars are written here.
//!
//! ```text
//! frame   = length (u64 LE) · masked CRC of those 8 bytes (u32 LE) · message · masked CRC of the message (u32 LE)
//! Event   = 1: wall time (f64) · 2: step (varint) · 3: file version (string) or 5: Summary
//! Summary = 1: Value, repeated;  Value = 1: tag (string) · 2: simple value (f32)
//! ```

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78).
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg()))
    })
}

/// The form of a CRC in which it may stand inside data that has a CRC itself.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xA282_EAD8)
}

fn frame(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    let mut out = Vec::with_capacity(message.len() + 16);
    out.extend(length);
    out.extend(masked(crc32c(&length)).to_le_bytes());
    out.extend(message);
    out.extend(masked(crc32c(message)).to_le_bytes());
    out
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A field of bytes: strings and messages.
fn bytes_field(number: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push((number << 3) | 2);
    varint(bytes.len() as u64, out);
    out.extend(bytes);
}

fn event(wall_time_s: f64, step: u64, content: (u8, &[u8])) -> Vec<u8> {
    let mut out = vec![(1 << 3) | 1];
    out.extend(wall_time_s.to_le_bytes());
    out.push(2 << 3);
    varint(step, &mut out);
    bytes_field(content.0, content.1, &mut out);
    out
}

/// An event file under way.
#[derive(Debug)]
pub struct EventFile(File);

impl EventFile {
    /// Begins a file, in place of one that is there. TensorBoard finds it by the `tfevents` in its name.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(path: &Path, wall_time_s: f64) -> io::Result<Self> {
        let mut file = File::create(path)?;
        file.write_all(&frame(&event(wall_time_s, 0, (3, b"brain.Event:2"))))?;
        Ok(Self(file))
    }

    /// Adds the scalars of a step.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn add<'a>(
        &mut self,
        wall_time_s: f64,
        step: u64,
        scalars: impl Iterator<Item = (&'a str, f64)>,
    ) -> io::Result<()> {
        let mut summary = Vec::new();
        for (tag, scalar) in scalars {
            let mut value = Vec::new();
            bytes_field(1, tag.as_bytes(), &mut value);
            value.push((2 << 3) | 5);
            value.extend((scalar as f32).to_le_bytes());
            bytes_field(1, &value, &mut summary);
        }
        self.0.write_all(&frame(&event(wall_time_s, step, (5, &summary))))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Steps with their scalars by tag, of the file at `path`.
    pub fn read(path: &Path) -> Vec<(u64, BTreeMap<String, f64>)> {
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("8"));
        let scalar = |value: &(u8, Vec<u8>)| {
            let parts = fields(&value.1);
            let simple = f32::from_le_bytes(parts[1].1.as_slice().try_into().expect("4"));
            (String::from_utf8(parts[0].1.clone()).expect("a tag"), f64::from(simple))
        };
        // The first event names the version.
        let events = events(&std::fs::read(path).expect("read"));
        events
            .iter()
            .skip(1)
            .map(|event| (number(&event[1].1), fields(&event[2].1).iter().map(scalar).collect()))
            .collect()
    }

    /// The events of a file, whose checksums must be right.
    fn events(bytes: &[u8]) -> Vec<Vec<(u8, Vec<u8>)>> {
        let mut rest = bytes;
        let mut events = Vec::new();
        while !rest.is_empty() {
            let (length, after) = rest.split_at(8);
            let (length_crc, after) = after.split_at(4);
            let size = u64::from_le_bytes(length.try_into().expect("8")) as usize;
            let (message, after) = after.split_at(size);
            let (message_crc, after) = after.split_at(4);
            assert_eq!(length_crc, masked(crc32c(length)).to_le_bytes());
            assert_eq!(message_crc, masked(crc32c(message)).to_le_bytes());
            events.push(fields(message));
            rest = after;
        }
        events
    }

    /// The fields of a message: number and content (a varint or fixed number as its little-endian bytes).
    fn fields(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut out = Vec::new();
        let varint = |bytes: &mut &[u8]| {
            let mut value = 0u64;
            for shift in (0..).step_by(7) {
                let (first, rest) = bytes.split_first().expect("a byte");
                *bytes = rest;
                value |= u64::from(first & 0x7F) << shift;
                if first & 0x80 == 0 {
                    break;
                }
            }
            value
        };
        while let Some((key, rest)) = bytes.split_first() {
            bytes = rest;
            let length = match key & 7 {
                0 => {
                    out.push((key >> 3, varint(&mut bytes).to_le_bytes().to_vec()));
                    continue;
                }
                1 => 8,
                5 => 4,
                2 => varint(&mut bytes) as usize,
                other => panic!("wire type {other}"),
            };
            let (content, rest) = bytes.split_at(length);
            out.push((key >> 3, content.to_vec()));
            bytes = rest;
        }
        out
    }

    #[test]
    fn checksums_are_the_known_ones() {
        // From RFC 3720, appendix B.4.
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
    }

    #[test]
    fn a_written_file_reads_back() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("events.out.tfevents.1");
        let mut file = EventFile::create(&path, 1.5).expect("created");
        let scalars = [("charts/mean_reward", 1.25), ("losses/value_loss", -0.5)];
        file.add(2.5, 300, scalars.into_iter()).expect("added");
        let bytes = std::fs::read(&path).expect("read");
        let events = events(&bytes);
        let number = |n: u64| n.to_le_bytes().to_vec();
        assert_eq!(events[0], [(1, 1.5f64.to_le_bytes().to_vec()), (2, number(0)), (3, b"brain.Event:2".to_vec())]);
        assert_eq!(events[1][..2], [(1, 2.5f64.to_le_bytes().to_vec()), (2, number(300))]);
        let values = fields(&events[1][2].1);
        assert_eq!((events.len(), values.len()), (2, 2));
        for ((_, value), (tag, scalar)) in values.iter().zip(scalars) {
            let want = [(1, tag.as_bytes().to_vec()), (2, (scalar as f32).to_le_bytes().to_vec())];
            assert_eq!(fields(value), want);
        }
    }
}
