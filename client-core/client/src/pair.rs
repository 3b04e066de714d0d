//! Whether the model of this tab and that of the server belong together, in words.
//!
//! A split answer is begun by one model and gone on with by the other, and eq. 26–27 compare what both would have said.
//! Both mean something for two models that were trained on the same things, and nothing for a code model in the tab beside
//! an encyclopaedia on the server. What can be seen from here is the vocabulary: models of one family cut text into the same
//! tokens. A server that hands over to another engine does not see it; there the names have to do.

use crate::protocol::health::HealthModel;
use crate::protocol::manifest::ModelEntry;
use crate::protocol::worker::{Fit, Pair};

/// The model of this tab.
#[derive(Clone, Copy, Debug)]
pub struct Device<'a> {
    /// Name for people.
    pub name: &'a str,
    /// What its vocabulary is recognised by.
    pub vocabulary: &'a str,
}

/// What the two have to do with each other. `offered` is what the server's manifest lists.
#[must_use]
pub fn pair(device: Device<'_>, server: &HealthModel, offered: &[ModelEntry]) -> Pair {
    let (fit, why) = match &server.vocabulary {
        Some(vocabulary) if vocabulary == device.vocabulary => (Fit::Same, ""),
        Some(_) => (Fit::Different, "they cut text into different tokens, so they are of different families"),
        None => match (family(device.name), family(&server.name)) {
            (Some(here), Some(there)) if here != there => (Fit::Different, "their names are of different families"),
            _ => (Fit::Unknown, ""),
        },
    };
    let both = format!("“{}” in this tab and “{}” on the server", device.name, server.name);
    // Of a family the smallest, which may be the server's very model.
    let of_family = |entry: &&ModelEntry| family(&entry.name).is_some() && family(&entry.name) == family(&server.name);
    let offer =
        (fit == Fit::Different).then(|| offered.iter().filter(of_family).min_by_key(|entry| entry.bytes)).flatten();
    let message = match (fit, offer) {
        (Fit::Same, _) => format!("{both} belong together: they cut text into the same tokens."),
        (Fit::Unknown, _) => {
            format!(
                "{both}: whether they belong together cannot be seen from here. Split answers need models of one family."
            )
        }
        (Fit::Different, offer) => {
            let instead = match offer {
                Some(entry) => {
                    format!("Load {}, which belongs to the server’s model, or let one side answer alone", entry.name)
                }
                None => "Load a smaller model of the server’s family, or let one side answer alone".to_owned(),
            };
            format!(
                "{both} do not belong together: {why}. A split answer begins in the one’s words and ends in the other’s, \
                 and the two are not compared. {instead}."
            )
        }
    };
    Pair { fit, message, offer: offer.map(|entry| entry.id.clone()) }
}

/// The families that people name their models after, as they stand in a name.
const FAMILIES: [&str; 14] = [
    "atlas",
    "codellama",
    "deepseek",
    "gemma",
    "gpt",
    "granite",
    "llama",
    "mistral",
    "mixtral",
    "olmo",
    "phi",
    "qwen",
    "smollm",
    "yi",
];

/// The family that a name speaks of: the first word in it that begins with one.
fn family(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase();
    let name = name.rsplit('/').next().unwrap_or(&name);
    let mut words = name.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty());
    words
        .find_map(|word| FAMILIES.into_iter().find(|family| word.starts_with(family) && word.len() <= family.len() + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::manifest::ModelManifest;

    fn shipped() -> Vec<ModelEntry> {
        let json = include_str!("../../../public/models/manifest.json");
        serde_json::from_str::<ModelManifest>(json).expect("a manifest").models
    }

    fn server(id: &str, name: &str, vocabulary: Option<&str>) -> HealthModel {
        let vocabulary = vocabulary.map(str::to_owned);
        HealthModel { id: id.to_owned(), name: name.to_owned(), context_length: None, vocabulary }
    }

    #[test]
    fn what_belongs_together_and_what_to_take_instead() {
        let qwen = Device { name: "Qwen2.5 Coder 0.5B Instruct", vocabulary: "q" };
        let atlas = Device { name: "Atlas Compact", vocabulary: "a" };
        for (device, server, fit, offer) in [
            (atlas, server("full", "Atlas Full", Some("a")), Fit::Same, None),
            (qwen, server("full", "Atlas Full", Some("a")), Fit::Different, Some("compact")),
            (qwen, server("other", "Another", Some("a")), Fit::Different, None),
            (qwen, server("m", "qwen/Qwen2.5-Coder-7B-Instruct", None), Fit::Unknown, None),
            (qwen, server("m", "meta-llama/Llama-3.1-8B", None), Fit::Different, None),
            (qwen, server("m", "my-own", None), Fit::Unknown, None),
            (atlas, server("m", "Qwen3-8B", None), Fit::Different, None),
        ] {
            let told = pair(device, &server, &shipped());
            assert_eq!((told.fit, told.offer.as_deref()), (fit, offer), "{told:?}");
            assert!(told.message.contains(device.name) && told.message.contains(&server.name), "{told:?}");
            let advises = told.message.contains("do not belong together") && told.message.contains("Load ");
            assert_eq!(advises, fit == Fit::Different, "{told:?}");
        }
    }

    #[test]
    fn of_a_catalogue_the_servers_family_is_offered() {
        let mut offered = shipped();
        for (id, name, bytes) in [("s1", "SmolLM2 135M", 98), ("s2", "SmolLM2 360M", 386), ("q", "Qwen3 0.6B", 9)] {
            offered.push(ModelEntry { id: id.to_owned(), name: name.to_owned(), bytes, ..offered[0].clone() });
        }
        let atlas = Device { name: "Atlas Compact", vocabulary: "a" };
        for (name, offer) in
            [("SmolLM2 1.7B Instruct", Some("s1")), ("SmolLM2 135M", Some("s1")), ("Llama 3.1 8B", None)]
        {
            let told = pair(atlas, &server("m", name, Some("b")), &offered);
            assert_eq!((told.fit, told.offer.as_deref()), (Fit::Different, offer), "{told:?}");
        }
    }

    #[test]
    fn families_are_words_of_a_name() {
        for (name, expect) in [
            ("SmolLM2-135M-Instruct", Some("smollm")),
            ("HuggingFaceTB/SmolLM2-135M", Some("smollm")),
            ("Qwen2.5 Coder 1.5B", Some("qwen")),
            ("gemma-3-270m", Some("gemma")),
            ("Phi-4-mini", Some("phi")),
            ("philosophy-7b", None),
            ("full", None),
            ("", None),
        ] {
            assert_eq!(family(name), expect, "{name}");
        }
    }

    #[cfg(feature = "engine")]
    #[test]
    fn the_shipped_models_have_one_vocabulary_and_another_model_has_another() {
        use engine::gguf::Gguf;
        use engine::tokenizer::Tokenizer;
        let of = |bytes: &[u8]| {
            let tokenizer = Tokenizer::from_gguf(&Gguf::parse(bytes).expect("a model")).expect("a tokenizer");
            tokenizer.fingerprint()
        };
        let compact = of(include_bytes!("../../../public/models/compact.gguf"));
        assert_eq!(compact, of(include_bytes!("../../../public/models/full.gguf")));
        let (tokens, merges, _) = engine::testing::trained(320);
        let config = engine::synthetic::config([tokens.len(), 64, 1, 4, 2, 96]);
        let blocks = engine::gguf::GgmlType::Q4_0;
        let storage = engine::synthetic::Storage { blocks, embedding: blocks, untied: false };
        let weights = engine::synthetic::weights(config, storage, 5).expect("weights");
        assert_ne!(compact, of(&engine::testing::model_file(&weights, &tokens, &merges, 3, "")));
    }
}
