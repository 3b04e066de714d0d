//! Which server offered which models, so that versions that a server withdrew leave this device, and no server can have
//! another one's removed.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Servers that are remembered. Of one that was forgotten nothing is removed.
const MAX_SERVERS: usize = 32;
/// Models that are remembered of a server.
const MAX_MODELS: usize = 256;

/// What each server offered when it was last asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offers {
    /// The one that was asked last is the last one.
    servers: Vec<Offer>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Offer {
    /// Where its manifest is.
    url: String,
    /// SHA-256 of its models' files.
    files: BTreeSet<String>,
}

impl Offers {
    /// Remembers what a server offers now. Returns what may go: what the same server offered before, and now neither it nor
    /// any other server that is remembered does.
    pub fn update<'a>(&mut self, url: &str, files: impl IntoIterator<Item = &'a str>) -> Vec<String> {
        let files: BTreeSet<String> = files.into_iter().take(MAX_MODELS).map(str::to_owned).collect();
        let before = self.servers.iter().position(|offer| offer.url == url).map(|at| self.servers.remove(at));
        self.servers.push(Offer { url: url.to_owned(), files });
        let surplus = self.servers.len().saturating_sub(MAX_SERVERS);
        self.servers.drain(..surplus);
        let is_offered = |file: &String| self.servers.iter().any(|offer| offer.files.contains(file));
        before.map_or_else(Vec::new, |before| before.files.into_iter().filter(|file| !is_offered(file)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_server_withdraws_itself_goes() {
        let mut offers = Offers::default();
        assert_eq!(offers.update("a", ["1", "2"]), [""; 0], "nobody knows who stored what was there before");
        assert_eq!(offers.update("b", ["2", "3"]), [""; 0], "a stranger's list removes nothing");
        assert_eq!(offers.update("a", ["4"]), ["1"], "the other one still offers 2");
        // One that lists another's models and then withdraws them.
        assert_eq!(offers.update("c", ["3", "4"]), [""; 0]);
        assert_eq!(offers.update("c", []), [""; 0]);
        assert_eq!(offers.update("b", []), ["2", "3"]);
        assert_eq!(offers.update("b", []), [""; 0]);
    }

    #[test]
    fn old_servers_are_forgotten_and_nothing_goes_for_it() {
        let mut offers = Offers::default();
        offers.update("first", ["1"]);
        for number in 0..MAX_SERVERS {
            assert_eq!(offers.update(&number.to_string(), [""]), [""; 0]);
        }
        assert_eq!(offers.servers.len(), MAX_SERVERS);
        assert_eq!(offers.update("first", []), [""; 0]);
        let many: Vec<String> = (0..2 * MAX_MODELS).map(|number| number.to_string()).collect();
        offers.update("many", many.iter().map(String::as_str));
        assert!(offers.servers.iter().all(|offer| offer.files.len() <= MAX_MODELS));
    }
}
