//! Byte ranges (RFC 9110, section 14), so that a download that was cut goes on where it stopped.
//!
//! Deliberately absent: several ranges in one request. RFC 9110 lets a server answer them with the whole file.

use axum::http::{HeaderMap, header};

/// Which bytes of a file are to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The whole file.
    All,
    /// From `first` to `last`, both included.
    Part {
        /// First byte.
        first: u64,
        /// Last byte.
        last: u64,
    },
    /// None that the file has.
    Impossible,
}

/// Reads `Range` and `If-Range`. A range of another version of the file (`If-Range` names another tag), in another unit
/// or in a form that nobody understands gets the whole file.
#[must_use]
pub fn wanted(headers: &HeaderMap, tag: &str, total: u64) -> Wanted {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    // A date in If-Range counts as another version: we send no Last-Modified that it could be compared with.
    if headers.contains_key(header::IF_RANGE) && text(header::IF_RANGE) != Some(tag) {
        return Wanted::All;
    }
    text(header::RANGE).and_then(|range| parse(range, total)).unwrap_or(Wanted::All)
}

fn parse(range: &str, total: u64) -> Option<Wanted> {
    let spec = range.trim().strip_prefix("bytes=")?.trim();
    let (first, last) = spec.split_once('-')?;
    if let ("", suffix) = (first, last) {
        let length = number(suffix)?;
        return Some(match (length, total) {
            (0, _) | (_, 0) => Wanted::Impossible,
            _ => Wanted::Part { first: total.saturating_sub(length), last: total - 1 },
        });
    }
    let first = number(first)?;
    let last = if last.is_empty() { u64::MAX } else { number(last)? };
    if last < first {
        return None;
    }
    Some(if first < total { Wanted::Part { first, last: last.min(total - 1) } } else { Wanted::Impossible })
}

/// Digits only: `parse` would also take a sign.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn ranges_of_a_file_of_ten_bytes() {
        let part = |first, last| Wanted::Part { first, last };
        for (range, expect) in [
            ("bytes=0-3", part(0, 3)),
            ("bytes=4-", part(4, 9)),
            ("bytes=9-9", part(9, 9)),
            ("bytes=3-100", part(3, 9)),
            ("bytes=0-99999999999999999999", part(0, 9)),
            ("bytes=-4", part(6, 9)),
            ("bytes=-100", part(0, 9)),
            ("bytes=10-", Wanted::Impossible),
            ("bytes=99999999999999999999-", Wanted::Impossible),
            ("bytes=-0", Wanted::Impossible),
            ("bytes=5-2", Wanted::All),
            ("bytes=0-1,4-5", Wanted::All),
            ("bytes=+1-2", Wanted::All),
            ("bytes=-", Wanted::All),
            ("bytes=", Wanted::All),
            ("lines=0-3", Wanted::All),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, HeaderValue::from_static(range));
            assert_eq!(wanted(&headers, "\"t\"", 10), expect, "{range}");
        }
        assert_eq!(parse("bytes=0-", 0), Some(Wanted::Impossible));
        assert_eq!(parse("bytes=-5", 0), Some(Wanted::Impossible));
    }

    #[test]
    fn a_range_of_another_version_is_not_served() {
        for (if_range, expect) in [
            ("\"t\"", Wanted::Part { first: 2, last: 9 }),
            ("\"old\"", Wanted::All),
            ("W/\"t\"", Wanted::All),
            ("Sat, 21 Nov 2026 06:00:00 GMT", Wanted::All),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, HeaderValue::from_static("bytes=2-"));
            headers.insert(header::IF_RANGE, HeaderValue::from_static(if_range));
            assert_eq!(wanted(&headers, "\"t\"", 10), expect, "{if_range}");
        }
    }
}
