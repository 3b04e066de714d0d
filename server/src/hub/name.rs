//! Which files of a hub may be asked for: model files and what describes them, by names that mean the same as a path, as
//! an address and as a file on any disk.

use std::fmt;

/// What a file's name may end in.
const ENDINGS: [&str; 4] = [".gguf", ".safetensors", ".json", ".jinja"];
/// Longest name.
const MAX_BYTES: usize = 256;
/// Most folders inside a repository.
const MAX_PARTS: usize = 8;

/// `ORGANISATION/REPOSITORY/PATH`, checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileName {
    organisation: String,
    repository: String,
    path: String,
}

impl FileName {
    /// The name of a file; `None` for one that is not passed on.
    #[must_use]
    pub fn new(organisation: &str, repository: &str, path: &str) -> Option<Self> {
        let is_name = |part: &str| {
            !part.is_empty()
                && !part.starts_with(['.', '-'])
                && !part.ends_with('.')
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        let length = organisation.len() + repository.len() + path.len();
        let sound = length <= MAX_BYTES
            && path.split('/').count() <= MAX_PARTS
            && [organisation, repository].into_iter().chain(path.split('/')).all(is_name)
            && ENDINGS.iter().any(|ending| path.len() > ending.len() && path.ends_with(ending));
        sound.then(|| Self {
            organisation: organisation.to_owned(),
            repository: repository.to_owned(),
            path: path.to_owned(),
        })
    }

    /// Where the hub has it, under its base address.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}/{}/resolve/main/{}", self.organisation, self.repository, self.path)
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}/{}", self.organisation, self.repository, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_passed_on() {
        for (organisation, repository, path, sound) in [
            ("org", "repo-1.0", "model-q4_0.gguf", true),
            ("org", "repo", "sub/model.gguf", true),
            ("org", "repo", "config.json", true),
            ("org", "repo", "../secret.json", false),
            ("org", "..", "m.gguf", false),
            ("org", "repo", ".git/x.json", false),
            ("org", "repo", "sub//m.gguf", false),
            ("org", "repo", "m.gguf.etag", false),
            ("org", "repo", "m.gguf.part", false),
            ("org", "repo", ".gguf", false),
            ("org", "repo", "run.py", false),
            ("org", "repo", "a b.gguf", false),
            ("org", "repo", "a%2fb.gguf", false),
            ("o?g", "repo", "m.gguf", false),
            ("org", "repo", "a\\b.gguf", false),
            ("org", "", "m.gguf", false),
            ("org", "repo", "a/b/c/d/e/f/g/h/i.gguf", false),
        ] {
            assert_eq!(
                FileName::new(organisation, repository, path).is_some(),
                sound,
                "{organisation}/{repository}/{path}"
            );
        }
        assert!(FileName::new("o", "r", &format!("{}.gguf", "x".repeat(256))).is_none());
        let name = FileName::new("o", "r", "s/m.gguf").unwrap();
        assert_eq!((name.to_string().as_str(), name.address().as_str()), ("o/r/s/m.gguf", "o/r/resolve/main/s/m.gguf"));
    }
}
