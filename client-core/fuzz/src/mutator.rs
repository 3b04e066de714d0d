//! Random damage to sound inputs, from a seed.

/// Numbers at which arithmetic goes wrong.
const EDGES: [u64; 20] = [
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    31,
    32,
    33,
    255,
    256,
    4096,
    1 << 20,
    (1 << 31) - 1,
    1 << 31,
    u32::MAX as u64,
    1 << 32,
    1 << 62,
    u64::MAX,
];

/// SplitMix64, and what is done with it.
#[derive(Debug)]
pub struct Mutator(u64);

impl Mutator {
    /// The same seed does the same damage.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    /// A place in a list of `len`. Half of the time near the beginning, where formats keep their counts.
    fn place(&mut self, len: usize) -> usize {
        let limit = if self.next() % 2 == 0 { len } else { len.min(256) };
        self.below(limit)
    }

    fn edge(&mut self, len: usize) -> u64 {
        let near = len as u64;
        match self.below(EDGES.len() + 4) {
            0 => near,
            1 => near.wrapping_sub(1),
            2 => near + 1,
            3 => self.next(),
            i => EDGES[i - 4],
        }
    }

    /// One of `seeds` with one to eight damages.
    pub fn damaged(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut input = seeds[self.below(seeds.len())].clone();
        for _ in 0..1 + self.below(8) {
            self.damage(&mut input, seeds);
        }
        input
    }

    fn damage(&mut self, input: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let len = input.len();
        if len == 0 {
            input.push(self.next() as u8);
            return;
        }
        let at = self.place(len);
        match self.below(11) {
            0 => input[at] ^= 1 << self.below(8),
            1 => input[at] = self.next() as u8,
            2 | 3 => {
                let (value, width) = (self.edge(len), [1, 2, 4, 8][self.below(4)]);
                let end = (at + width).min(len);
                input[at..end].copy_from_slice(&value.to_le_bytes()[..end - at]);
            }
            4 => input.truncate(at),
            5 => {
                let end = (at + 1 + self.below(16)).min(len);
                input.drain(at..end);
            }
            6 => {
                let end = (at + 1 + self.below(64)).min(len);
                let part = input[at..end].to_vec();
                let to = self.place(len);
                input.splice(to..to, part);
            }
            7 => {
                let bytes: Vec<u8> = (0..1 + self.below(8)).map(|_| self.next() as u8).collect();
                input.splice(at..at, bytes);
            }
            8 => {
                let other = &seeds[self.below(seeds.len())];
                let from = self.place(other.len());
                let part = other[from..(from + self.below(64)).min(other.len())].to_vec();
                input.splice(at..at, part);
            }
            9 => {
                let to = self.place(len);
                input.swap(at, to);
            }
            // Texts hold their numbers as digits.
            _ => {
                if let Some(digit) = input[at..].iter().position(u8::is_ascii_digit) {
                    let number = self.edge(len).to_string();
                    input.splice(at + digit..=at + digit, number.into_bytes());
                }
            }
        }
    }
}
