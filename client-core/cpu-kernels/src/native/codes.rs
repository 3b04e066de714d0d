//! What is known of a block's codes when the tiles are compiled.

use super::packed::Bits;

/// [`Bits`] as constants: functions are compiled for each.
pub const ONE: u8 = 1;
pub const TWO: u8 = 2;
pub const THREE: u8 = 3;
pub const FOUR: u8 = 4;
pub const FIVE: u8 = 5;
pub const SIX: u8 = 6;
pub const EIGHT: u8 = 8;
pub const LEVELS: u8 = 16;

const fn bits(of: u8) -> Bits {
    match of {
        ONE => Bits::One,
        TWO => Bits::Two,
        THREE => Bits::Three,
        FOUR => Bits::Four,
        FIVE => Bits::Five,
        SIX => Bits::Six,
        LEVELS => Bits::Levels,
        _ => Bits::Eight,
    }
}

/// Vectors of the codes of a block.
pub const fn vectors(of: u8) -> usize {
    bits(of).bytes() / 32
}

/// Parts of a block with scales of their own.
pub const fn parts(of: u8) -> usize {
    bits(of).parts()
}

/// Blocks that share a scale, where scales have no parts.
pub const fn shared(of: u8) -> usize {
    if of == ONE { 4 } else { 1 }
}
