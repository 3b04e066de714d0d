//! The list that ships is sound, and what is wrong with another one is said.

use super::*;
use crate::protocol::manifest::ModelManifest;

fn shipped() -> Catalogue {
    Catalogue::parse(include_bytes!("../../../../public/models/catalogue.json")).expect("a catalogue")
}

#[test]
fn the_catalogue_says_of_the_shipped_pair_what_the_manifest_says() {
    let catalogue = shipped();
    let json = include_bytes!("../../../../public/models/manifest.json");
    let manifest: ModelManifest = serde_json::from_slice(json).expect("a manifest");
    assert_eq!(manifest.models.len(), 2);
    for entry in manifest.models {
        let model = catalogue.find(&entry.id).expect("the shipped models are in the catalogue");
        assert!(model.is_shipped());
        assert_eq!((&model.name, &model.file, model.bytes), (&entry.name, &entry.file, Some(entry.bytes)));
        assert_eq!(model.sha256.as_ref(), Some(&entry.sha256));
        assert_eq!((model.parameters, &model.quantisation), (entry.parameters, &entry.quantisation));
        assert_eq!((model.context_length, model.cache_width), (entry.context_length, entry.cache_width));
        assert_eq!(model.licence.id, entry.licence);
    }
}

#[test]
fn every_model_says_where_it_is_what_it_takes_and_what_it_asks() {
    let catalogue = shipped();
    assert!(catalogue.models.len() >= 15 && catalogue.hub.starts_with("https://"));
    for model in &catalogue.models {
        let bytes = model.bytes.expect("a size");
        // From 4 to 9 bits a parameter, and a vocabulary beside them.
        let bits = bytes as f64 * 8.0 / model.parameters as f64;
        assert!((4.0..=9.5).contains(&bits), "{}: {bits} bits a parameter", model.id);
        assert!(model.is_shipped() || model.repository.is_some(), "{}", model.id);
        assert!(model.licence.asks.ends_with('.') && model.licence.url.starts_with("https://"), "{}", model.id);
        assert!(model.needs_bytes(2048) > model.bytes && model.cache_width > 0, "{}", model.id);
    }
    let is_small = |model: &&CatalogueEntry| model.role == Role::Device;
    assert!(catalogue.models.iter().filter(is_small).all(|model| model.bytes < Some(700_000_000)));
}

#[test]
fn what_a_model_needs_grows_with_its_context_and_no_further() {
    let catalogue = shipped();
    let model = catalogue.find("smollm2-135m").expect("it is there");
    // Keys and values of 3 heads of 64 numbers in 30 layers, 2 bytes each.
    assert_eq!(model.needs_bytes(2048), Some(98_362_432 + 2 * 30 * 3 * 64 * 2 * 2048));
    assert_eq!(model.needs_bytes(100_000), model.needs_bytes(8192));
}

#[test]
fn names_find_models() {
    let catalogue = shipped();
    for (name, id) in [
        ("smollm2", Some("smollm2-135m")),
        ("SmolLM2-135M", Some("smollm2-135m")),
        ("qwen2.5-coder", Some("qwen2.5-coder-0.5b")),
        ("full", Some("full")),
        ("smol", None),
        ("", None),
    ] {
        assert_eq!(catalogue.find(name).map(|model| model.id.as_str()), id, "{name}");
    }
}

#[test]
fn a_list_of_ones_own_adds_and_replaces() {
    let mut catalogue = shipped();
    let before = catalogue.models.len();
    let mut own = Catalogue { models: vec![catalogue.models[2].clone()], ..catalogue.clone() };
    own.models[0].bytes = None;
    own.models.push(CatalogueEntry { id: "mine".into(), aliases: Vec::new(), ..own.models[0].clone() });
    catalogue.extend(own).expect("it fits");
    assert_eq!(catalogue.models.len(), before + 1);
    assert_eq!(catalogue.find("smollm2").expect("replaced").bytes, None);
    let own = Catalogue {
        models: vec![CatalogueEntry { id: "other".into(), ..catalogue.models[2].clone() }],
        ..catalogue.clone()
    };
    assert!(catalogue.extend(own).expect_err("an alias twice").to_string().contains("smollm2"));
}

#[test]
fn what_is_wrong_with_a_list_is_said() {
    let good = serde_json::to_value(shipped()).expect("json");
    for (field, value, said) in [
        ("id", "Two Words", "names are made of"),
        ("id", "full", "twice"),
        ("file", "../m.gguf", "without folders"),
        ("file", "m.bin", ".gguf"),
        ("repository", "org", "organisation/repository"),
        ("repository", "org/../x", "organisation/repository"),
        ("url", "ftp://x/m.gguf", "https://"),
        ("sha256", "ABC", "64 hexadecimal"),
        ("role", "other", "unknown variant"),
    ] {
        let mut json = good.clone();
        json["models"][0][field] = value.into();
        let error = Catalogue::parse(json.to_string().as_bytes()).expect_err(field).to_string();
        assert!(error.contains(said), "{field} {value}: {error}");
    }
    let mut json = good.clone();
    json["version"] = 2.into();
    assert!(Catalogue::parse(json.to_string().as_bytes()).expect_err("version").to_string().contains("version 2"));
    let mut json = good;
    let model = json["models"][2].clone();
    let many = (0..600).map(|n| {
        let mut model = model.clone();
        model["id"] = format!("m{n}").into();
        model["aliases"] = serde_json::json!([]);
        model
    });
    json["models"] = many.collect();
    assert!(Catalogue::parse(json.to_string().as_bytes()).expect_err("many").to_string().contains("512"));
}

#[test]
fn a_page_is_offered_what_it_can_check() {
    let mut model = shipped().models[2].clone();
    assert_eq!(model.offer(true), None, "nobody has said where it is");
    model.address = Some("stored/smollm2-135m/m.gguf".to_owned());
    let offer = model.offer(true).expect("an offer");
    assert_eq!((offer.id.as_str(), offer.bytes, offer.preferred), ("smollm2-135m", 98_362_432, true));
    model.sha256 = None;
    assert_eq!(model.offer(false), None);
}

#[test]
fn a_manifest_gets_what_devices_can_have() {
    let mut manifest: ModelManifest =
        serde_json::from_slice(include_bytes!("../../../../public/models/manifest.json")).expect("a manifest");
    let before = manifest.clone();
    let mut catalogue = shipped();
    catalogue.offer_to(&mut manifest);
    assert_eq!(manifest, before, "nobody has said where the files are");
    for model in &mut catalogue.models {
        model.address = Some(format!("stored/{}/{}", model.id, model.file));
    }
    catalogue.device = Some("qwen3-0.6b".to_owned());
    catalogue.offer_to(&mut manifest);
    assert_eq!(manifest.models[..2], before.models);
    let ids: Vec<&str> = manifest.models.iter().map(|model| model.id.as_str()).collect();
    assert!(ids.contains(&"smollm2-135m") && ids.contains(&"qwen3-4b") && !ids.contains(&"qwen3-8b"), "{ids:?}");
    let preferred: Vec<&str> =
        manifest.models.iter().filter(|model| model.preferred).map(|model| model.id.as_str()).collect();
    assert_eq!(preferred, ["qwen3-0.6b"]);
    catalogue.device = Some("compact".to_owned());
    catalogue.offer_to(&mut manifest);
    assert!(manifest.models.iter().any(|model| model.id == "compact" && model.preferred));
}
