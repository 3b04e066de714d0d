//! Codes that people type, tokens and secrets that programs keep, and what the server keeps of them.

use client::protocol::rooms::{CODE_ALPHABET, CODE_CHARS};
use rustls::crypto::SecureRandom;
use sha2::{Digest as _, Sha256};

use super::RoomsError;

/// What is kept of a token or a secret: whoever reads the database cannot join with it.
pub type Hash = [u8; 32];

fn random<const N: usize>() -> Result<[u8; N], RoomsError> {
    let mut bytes = [0; N];
    let source: &dyn SecureRandom = rustls::crypto::ring::default_provider().secure_random;
    source.fill(&mut bytes).map_err(|_| RoomsError::NoRandom)?;
    Ok(bytes)
}

/// A token or a secret: 128 bits that nobody guesses, as text.
///
/// # Errors
/// The system gives no random numbers.
pub fn token() -> Result<String, RoomsError> {
    Ok(random::<16>()?.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A code for people.
///
/// # Errors
/// The system gives no random numbers.
pub fn code() -> Result<String, RoomsError> {
    let letters = CODE_ALPHABET.as_bytes();
    let mut number = u64::from_le_bytes(random()?);
    let mut code = String::new();
    for _ in 0..CODE_CHARS {
        // 2^64 is so much more than 28^6 that no letter is likelier than another.
        let at = (number % letters.len() as u64) as usize;
        number /= letters.len() as u64;
        code.extend(letters.get(at).map(|letter| char::from(*letter)));
    }
    Ok(code)
}

/// A seed that every program reads alike: below 2^53.
///
/// # Errors
/// The system gives no random numbers.
pub fn seed() -> Result<u64, RoomsError> {
    Ok(u64::from_le_bytes(random()?) >> 11)
}

/// What is kept of a token.
#[must_use]
pub fn hash(token: &str) -> Hash {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_tokens_have_their_form_and_differ() {
        let (one, other) = (code().unwrap(), code().unwrap());
        assert_eq!(client::protocol::rooms::tidy_code(&one).as_deref(), Some(one.as_str()));
        assert_ne!(one, other);
        assert_eq!(token().unwrap().len(), 32);
        assert_ne!(hash(&token().unwrap()), hash(&token().unwrap()));
        assert!(seed().unwrap() < 1 << 53);
    }
}
